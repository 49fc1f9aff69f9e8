/* Answers the traffic of load.c on a port of its own, which it prints, until stdin ends. One thread serves everybody. */
#include "common.h"
#include <sys/epoll.h>

struct client {
    int fd;
    char what;             /* 0 until its first byte came, then 'D', 'U', 'E' or '.' for one that was served */
    unsigned have;         /* bytes of `milliseconds` that came */
    uint64_t milliseconds; /* how long to send; */
    uint64_t until;        /* then when to end */
    uint64_t count;        /* bytes taken */
    char last;             /* whether the block that comes is the last */
};

static void watch(int poll, struct client *client, uint32_t events, int how)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(poll, how, client->fd, &event))
        fail("epoll_ctl");
}

static void drop(struct client *client)
{
    close(client->fd);
    free(client);
}

static void take_blocks(struct client *client, const char *data, size_t got)
{
    while (got) {
        size_t at = client->count % CHUNK, step = got < CHUNK - at ? got : CHUNK - at;
        if (at == 0)
            client->last = *data;
        client->count += step, data += step, got -= step;
        if (client->last == LAST && client->count % CHUNK == 0 &&
            write(client->fd, &client->count, sizeof client->count) < 0)
            fprintf(stderr, "nobody waits for a count\n");
    }
}

/* Takes in one read. Clients of an echo wait for it, so it always fits the socket's buffer. */
static void take(int poll, struct client *client)
{
    static char buffer[CHUNK];
    ssize_t got = read(client->fd, buffer, sizeof buffer);
    char *data = buffer;
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(client);
        return;
    }
    if (!client->what) {
        client->what = *data;
        if (client->what != 'E')
            data++, got--;
    }
    if (client->what == 'E' && write(client->fd, data, (size_t)got) != got) {
        drop(client);
    } else if (client->what == 'U') {
        take_blocks(client, data, (size_t)got);
    } else if (client->what == 'D') {
        while (got-- && client->have < sizeof client->milliseconds)
            ((char *)&client->milliseconds)[client->have++] = *data++;
        if (client->have == sizeof client->milliseconds) {
            client->until = now_ns() + client->milliseconds * 1000000;
            watch(poll, client, EPOLLOUT, EPOLL_CTL_MOD);
        }
    }
}

static void give(int poll, struct client *client)
{
    if (now_ns() >= client->until) {
        shutdown(client->fd, SHUT_WR);
        client->what = '.';
        watch(poll, client, EPOLLIN, EPOLL_CTL_MOD);
    } else if (write(client->fd, chunk, CHUNK) < 0 && errno != EAGAIN) {
        drop(client);
    }
}

int main(void)
{
    struct client listener = {.fd = listen_anywhere(SOCK_NONBLOCK)}, parent = {.fd = 0};
    int poll = epoll_create1(0);
    struct epoll_event events[64];
    watch(poll, &listener, EPOLLIN, EPOLL_CTL_ADD);
    watch(poll, &parent, EPOLLIN, EPOLL_CTL_ADD);
    signal(SIGPIPE, SIG_IGN);
    fill_chunk();
    for (;;) {
        int ready = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            if (client == &parent)
                exit(0);
            if (client == &listener) {
                int fd;
                while ((fd = accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    struct client *accepted = calloc(1, sizeof *accepted);
                    accepted->fd = fd;
                    without_delay(fd);
                    watch(poll, accepted, EPOLLIN, EPOLL_CTL_ADD);
                }
            } else if (events[i].events & EPOLLOUT) {
                give(poll, client);
            } else {
                take(poll, client);
            }
        }
    }
}
