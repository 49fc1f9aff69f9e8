/* Makes the traffic the benchmark measures, and prints what came of it as one line of JSON.
 *
 *   load down PORT TARGET STREAMS MILLISECONDS   downloads
 *   load up   PORT TARGET STREAMS MILLISECONDS   uploads
 *   load ping PORT TARGET BYTES MILLISECONDS     sends BYTES and waits for their echo, over and over
 *   load rate PORT TARGET CLIENTS MILLISECONDS   connects, exchanges one byte, closes, over and over
 *   load idle PORT TARGET COUNT 0                holds COUNT open connections until stdin ends
 *
 * PORT is connected to on 127.0.0.1. TARGET is 0, or the port of 127.0.0.1 to ask the SOCKS 5 proxy at PORT for.
 */
#include "common.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/time.h>

enum { WARM_PINGS = 20, DIALLERS = 16, MOST_ERRORS = 50, PATIENCE_SECONDS = 20 };

static uint16_t port, target;
static uint64_t milliseconds, deadline;
static atomic_ullong done, errors;
static pthread_barrier_t connected, started;

/* A thread that has connected waits here; the clock starts when all have. */
static void get_set(void)
{
    pthread_barrier_wait(&connected);
    pthread_barrier_wait(&started);
}

static int send_all(int fd, const void *data, size_t length)
{
    return send(fd, data, length, MSG_NOSIGNAL) == (ssize_t)length;
}

static int receive_all(int fd, void *data, size_t length)
{
    return recv(fd, data, length, MSG_WAITALL) == (ssize_t)length;
}

/* RFC 1928, without authentication, to an IPv4 address. */
static int ask_proxy(int fd)
{
    unsigned char request[] = {5, 1, 0, 1, 127, 0, 0, 1, (unsigned char)(target >> 8), (unsigned char)target};
    unsigned char answer[18];
    if (!send_all(fd, "\5\1\0", 3) || !receive_all(fd, answer, 2) || answer[1] != 0)
        return 0;
    if (!send_all(fd, request, sizeof request) || !receive_all(fd, answer, 4) || answer[1] != 0)
        return 0;
    return receive_all(fd, answer, answer[3] == 4 ? 18 : 6);
}

/* Returns a socket whose connection goes all the way as far as the tunnel tells, or -1. */
static int dial(void)
{
    struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    without_delay(fd);
    if (!connect_to(fd, port) && (!target || ask_proxy(fd)))
        return fd;
    close(fd);
    return -1;
}

static int must_dial(void)
{
    int fd = dial();
    if (fd < 0)
        fail("connect");
    return fd;
}

static void *download(void *unused)
{
    int fd = must_dial();
    ssize_t got;
    char *buffer = malloc(CHUNK);
    get_set();
    if (!send_all(fd, "D", 1) || !send_all(fd, &milliseconds, sizeof milliseconds))
        fail("request");
    while ((got = recv(fd, buffer, CHUNK, 0)) > 0)
        done += (uint64_t)got;
    if (got < 0)
        fail("download");
    close(fd);
    free(buffer);
    return unused;
}

static void *upload(void *unused)
{
    int fd = must_dial();
    uint64_t sent = 0, taken = 0;
    char *block = malloc(CHUNK);
    memcpy(block, chunk, CHUNK);
    get_set();
    if (!send_all(fd, "U", 1))
        fail("request");
    do {
        *block = now_ns() < deadline ? MORE : LAST;
        if (!send_all(fd, block, CHUNK))
            fail("upload");
        sent += CHUNK;
    } while (*block == MORE);
    errno = 0;
    if (!receive_all(fd, &taken, sizeof taken) || taken != sent)
        fail("bytes were lost on the way up");
    done += taken;
    close(fd);
    free(block);
    return unused;
}

static void *connect_often(void *unused)
{
    get_set();
    while (now_ns() < deadline && errors < MOST_ERRORS) {
        char byte;
        int fd = dial();
        if (fd >= 0 && send_all(fd, "E", 1) && receive_all(fd, &byte, 1))
            done++;
        else
            errors++;
        if (fd >= 0)
            close(fd);
    }
    return unused;
}

static void *hold(void *count)
{
    char byte;
    get_set();
    while (atomic_fetch_sub((atomic_int *)count, 1) > 0) {
        int fd = must_dial();
        if (!send_all(fd, "E", 1) || !receive_all(fd, &byte, 1))
            fail("a connection to be held");
        done++;
    }
    return NULL;
}

/* Runs threads to their end and returns the seconds it took from when all of them had connected. */
static double run(void *(*body)(void *), unsigned threads, void *argument)
{
    pthread_t ids[threads];
    pthread_barrier_init(&connected, NULL, threads + 1);
    pthread_barrier_init(&started, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, body, argument))
            fail("thread");
    pthread_barrier_wait(&connected);
    uint64_t began = now_ns();
    deadline = began + milliseconds * 1000000;
    pthread_barrier_wait(&started);
    for (unsigned i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    return (double)(now_ns() - began) / 1e9;
}

static int ascending(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

static void ping(size_t length)
{
    size_t count = 0, room = 1 << 22;
    uint64_t *times = malloc(room * sizeof *times);
    char message[length], answer[length];
    int fd = must_dial();
    memset(message, 'E', length);
    deadline = now_ns() + milliseconds * 1000000;
    for (uint64_t before = 0; before < deadline && count < room; count++) {
        before = now_ns();
        if (!send_all(fd, message, length) || !receive_all(fd, answer, length))
            fail("ping");
        times[count] = now_ns() - before;
    }
    size_t warm = count > 2 * WARM_PINGS ? WARM_PINGS : 0;
    times += warm, count -= warm;
    qsort(times, count, sizeof *times, ascending);
    printf("{\"count\": %zu, \"p50\": %.2f, \"p99\": %.2f, \"max\": %.2f}\n", count, (double)times[count / 2] / 1e3,
           (double)times[count * 99 / 100] / 1e3, (double)times[count - 1] / 1e3);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    signal(SIGPIPE, SIG_IGN);
    fill_chunk();
    if (argc != 6) {
        fprintf(stderr, "usage: load down|up|ping|rate|idle PORT TARGET NUMBER MILLISECONDS\n");
        return 2;
    }
    port = (uint16_t)atoi(argv[2]), target = (uint16_t)atoi(argv[3]);
    unsigned number = (unsigned)atoi(argv[4]);
    milliseconds = strtoull(argv[5], NULL, 10);
    if (!strcmp(mode, "ping")) {
        ping(number);
    } else if (!strcmp(mode, "idle")) {
        atomic_int left = (int)number;
        run(hold, DIALLERS, &left);
        printf("{\"held\": %llu}\n", done);
        fflush(stdout);
        return read(0, chunk, 1) != 0;
    } else {
        int down = !strcmp(mode, "down"), up = !strcmp(mode, "up");
        double seconds = run(down ? download : up ? upload : connect_often, number, NULL);
        printf("{\"%s\": %llu, \"seconds\": %.6f, \"errors\": %llu}\n", down || up ? "bytes" : "connections", done,
               seconds, errors);
    }
    return 0;
}
