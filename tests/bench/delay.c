/* A long path: `delay TARGET MICROSECONDS` listens on a port of 127.0.0.1, which it prints, connects to port TARGET there
 * for each client, and hands every byte on MICROSECONDS later. It ends when stdin does.
 *
 * Up to QUEUE bytes are on their way in each direction, so that the delay does not limit the rate below
 * QUEUE / delay: 2.5 GB/s at 50 ms.
 */
#include "common.h"
#include <pthread.h>
#include <stdatomic.h>

enum { PIECE = 128 * 1024, QUEUE = 128 * 1024 * 1024, STACK = 256 * 1024 };

struct piece {
    struct piece *next;
    uint64_t due;
    size_t length; /* 0 at the end of the stream */
    char data[PIECE];
};

struct way {
    int from, to;
    atomic_int *open; /* ways that still use the two sockets; shared by both, freed with them by the last */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct piece *first, *last;
    size_t queued;
    int broken;
};

static uint16_t target;
static uint64_t delay_ns;
static pthread_attr_t small;

static int write_all(int fd, const char *data, size_t length)
{
    while (length) {
        ssize_t put = send(fd, data, length, MSG_NOSIGNAL);
        if (put < 0)
            return 0;
        data += put, length -= (size_t)put;
    }
    return 1;
}

static void leave(struct way *way)
{
    if (atomic_fetch_sub(way->open, 1) == 1) {
        close(way->from);
        close(way->to);
        free(way->open);
    }
    free(way);
}

static void *send_when_due(void *argument)
{
    struct way *way = argument;
    for (int going = 1; going;) {
        pthread_mutex_lock(&way->lock);
        while (!way->first)
            pthread_cond_wait(&way->changed, &way->lock);
        struct piece *piece = way->first;
        pthread_mutex_unlock(&way->lock);
        struct timespec due = {.tv_sec = (time_t)(piece->due / 1000000000), .tv_nsec = (long)(piece->due % 1000000000)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
            ;
        going = piece->length != 0;
        if (going && !way->broken && !write_all(way->to, piece->data, piece->length)) {
            way->broken = 1;
            shutdown(way->from, SHUT_RDWR);
        }
        pthread_mutex_lock(&way->lock);
        way->first = piece->next;
        way->queued -= piece->length;
        pthread_cond_signal(&way->changed);
        pthread_mutex_unlock(&way->lock);
        free(piece);
    }
    shutdown(way->to, SHUT_WR);
    return NULL;
}

static void *take_in(void *argument)
{
    struct way *way = argument;
    pthread_t sender;
    pthread_create(&sender, &small, send_when_due, way);
    for (ssize_t got = 1; got > 0;) {
        struct piece *piece = malloc(sizeof *piece);
        got = recv(way->from, piece->data, PIECE, 0);
        piece->next = NULL;
        piece->due = now_ns() + delay_ns;
        piece->length = got > 0 ? (size_t)got : 0;
        pthread_mutex_lock(&way->lock);
        while (way->queued > QUEUE)
            pthread_cond_wait(&way->changed, &way->lock);
        if (way->first)
            way->last->next = piece;
        else
            way->first = piece;
        way->last = piece;
        way->queued += piece->length;
        pthread_cond_signal(&way->changed);
        pthread_mutex_unlock(&way->lock);
    }
    pthread_join(sender, NULL);
    leave(way);
    return NULL;
}

static void start_way(int from, int to, atomic_int *open)
{
    struct way *way = calloc(1, sizeof *way);
    pthread_t thread;
    way->from = from, way->to = to, way->open = open;
    pthread_mutex_init(&way->lock, NULL);
    pthread_cond_init(&way->changed, NULL);
    without_delay(to);
    if (pthread_create(&thread, &small, take_in, way))
        fail("thread");
    pthread_detach(thread);
}

static void *end_with_parent(void *unused)
{
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    exit(0);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t parent;
    if (argc != 3) {
        fprintf(stderr, "usage: delay TARGET MICROSECONDS\n");
        return 2;
    }
    target = (uint16_t)atoi(argv[1]);
    delay_ns = strtoull(argv[2], NULL, 10) * 1000;
    signal(SIGPIPE, SIG_IGN);
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK);
    int listener = listen_anywhere(0);
    pthread_create(&parent, &small, end_with_parent, NULL);
    for (;;) {
        int from = accept(listener, NULL, NULL), to = socket(AF_INET, SOCK_STREAM, 0);
        if (from < 0 || to < 0 || connect_to(to, target)) {
            close(from);
            close(to);
            continue;
        }
        atomic_int *open = malloc(sizeof *open);
        *open = 2;
        start_way(from, to, open);
        start_way(to, from, open);
    }
}
