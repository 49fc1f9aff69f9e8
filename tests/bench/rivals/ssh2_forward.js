// Node's ssh2 with net and forwardOut: `node ssh2_forward.js PORT USER KEY KNOWN_HOSTS LISTEN:TARGET…`, as Termix does it.
const fs = require("fs");
const net = require("net");
const { Client } = require("ssh2");

const [port, username, key, , ...pairs] = process.argv.slice(2);
const client = new Client();

client.on("ready", () => {
  for (const pair of pairs) {
    const [listen, target] = pair.split(":").map(Number);
    const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      socket.on("error", () => socket.destroy());
      client.forwardOut("127.0.0.1", socket.remotePort, "127.0.0.1", target, (error, channel) => {
        if (error) return socket.destroy();
        channel.on("error", () => socket.destroy());
        socket.on("close", () => channel.end());
        socket.pipe(channel).pipe(socket);
      });
    });
    server.listen(listen, "127.0.0.1");
  }
});
client.connect({ host: "127.0.0.1", port: Number(port), username, privateKey: fs.readFileSync(key) });
