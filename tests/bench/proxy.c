/* A bare TCP proxy: `proxy TARGET` listens on a port of 127.0.0.1, which it prints, connects to port TARGET there for
 * each client, and ends when stdin does. One thread, no cryptography, no second hop: no tunnel can be faster.
 */
#include "common.h"
#include <sys/epoll.h>

enum { BATCH = 64 };

struct end {
    int fd;
    struct end *peer, *next_dead;
    char *waiting; /* bytes that came from the peer and do not fit into the socket yet */
    size_t length, sent;
    int taken_all; /* nothing more comes from this socket */
    int told;      /* the peer was told so */
    int dead;
};

static int poll_fd;
static struct end *dead;

static void watch(struct end *end, int how)
{
    /* Nothing is read that the peer has no room for. */
    uint32_t in = end->taken_all || end->peer->waiting ? 0 : EPOLLIN, out = end->waiting ? EPOLLOUT : 0;
    struct epoll_event event = {.events = in | out, .data.ptr = end};
    if (epoll_ctl(poll_fd, how, end->fd, &event))
        fail("epoll_ctl");
}

/* Closes both; they are freed after the batch, which may speak of either once more. */
static void drop(struct end *end)
{
    struct end *both[] = {end, end->peer};
    for (int i = 0; i < 2; i++) {
        both[i]->dead = 1;
        close(both[i]->fd);
        both[i]->next_dead = dead;
        dead = both[i];
    }
}

static void bury(void)
{
    while (dead) {
        struct end *end = dead;
        dead = end->next_dead;
        free(end->waiting);
        free(end);
    }
}

static void settle(struct end *end)
{
    struct end *peer = end->peer;
    if (end->taken_all && !peer->waiting && !end->told) {
        shutdown(peer->fd, SHUT_WR);
        end->told = 1;
    }
    if (end->told && peer->told) {
        drop(end);
        return;
    }
    watch(end, EPOLL_CTL_MOD);
    watch(peer, EPOLL_CTL_MOD);
}

static void take(struct end *end)
{
    struct end *peer = end->peer;
    ssize_t got = recv(end->fd, chunk, CHUNK, 0), put;
    if (got < 0 && errno == EAGAIN)
        return;
    if (got < 0) {
        drop(end);
    } else if (got == 0) {
        end->taken_all = 1;
        settle(end);
    } else if ((put = send(peer->fd, chunk, (size_t)got, MSG_NOSIGNAL)) != got) {
        if (put < 0 && errno != EAGAIN) {
            drop(end);
            return;
        }
        put = put < 0 ? 0 : put;
        peer->length = (size_t)(got - put), peer->sent = 0;
        peer->waiting = malloc(peer->length);
        memcpy(peer->waiting, chunk + put, peer->length);
        settle(end);
    }
}

static void give(struct end *end)
{
    ssize_t put = send(end->fd, end->waiting + end->sent, end->length - end->sent, MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN) {
        drop(end);
    } else if (put > 0 && (end->sent += (size_t)put) == end->length) {
        free(end->waiting);
        end->waiting = NULL;
        settle(end->peer);
    }
}

static void join(int client, uint16_t target)
{
    struct end *ends[] = {calloc(1, sizeof(struct end)), calloc(1, sizeof(struct end))};
    int server = socket(AF_INET, SOCK_STREAM, 0);
    ends[0]->fd = client, ends[1]->fd = server;
    ends[0]->peer = ends[1], ends[1]->peer = ends[0];
    if (server < 0 || connect_to(server, target)) {
        drop(ends[0]);
        return;
    }
    for (int i = 0; i < 2; i++) {
        without_delay(ends[i]->fd);
        fcntl(ends[i]->fd, F_SETFL, O_NONBLOCK);
        watch(ends[i], EPOLL_CTL_ADD);
    }
}

int main(int argc, char **argv)
{
    struct epoll_event events[BATCH], event = {.events = EPOLLIN};
    struct end parent = {.fd = 0}, listener = {.fd = 0};
    if (argc != 2) {
        fprintf(stderr, "usage: proxy TARGET\n");
        return 2;
    }
    listener.fd = listen_anywhere(SOCK_NONBLOCK);
    poll_fd = epoll_create1(0);
    event.data.ptr = &parent;
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, parent.fd, &event);
    event.data.ptr = &listener;
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener.fd, &event);
    for (;;) {
        int client, ready = epoll_wait(poll_fd, events, BATCH, -1);
        for (int i = 0; i < ready; i++) {
            struct end *end = events[i].data.ptr;
            if (end == &parent)
                return 0;
            if (end == &listener)
                while ((client = accept(listener.fd, NULL, NULL)) >= 0)
                    join(client, (uint16_t)atoi(argv[1]));
            else if (!end->dead && events[i].events & EPOLLERR)
                drop(end);
            else if (!end->dead && events[i].events & EPOLLOUT)
                give(end);
            else if (!end->dead && !end->taken_all && !end->peer->waiting)
                take(end);
            else if (!end->dead && events[i].events & EPOLLHUP && end->told)
                drop(end);
        }
        bury();
    }
}
