/* What both ends of the benchmark's traffic share. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The first byte a client sends says what the server does.
 *
 * 'D' and eight bytes of milliseconds: sends for that long and ends. 'U': takes blocks of CHUNK bytes, the first byte of
 * each telling whether it is the last, and answers that one with the count of all bytes in eight. 'E': echoes, that byte
 * included. No direction needs a half-close, which not every tunnel hands on.
 */
enum { MORE, LAST, CHUNK = 256 * 1024 };

static char chunk[CHUNK] __attribute__((unused));

static inline void fill_chunk(void)
{
    for (size_t i = 0; i < CHUNK; i++)
        chunk[i] = (char)(i * 2654435761u >> 13);
}

static inline void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "unexpected end");
    exit(1);
}

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void without_delay(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* Listens on a port of 127.0.0.1 and prints it. */
static inline int listen_anywhere(int flags)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) || listen(fd, 4096))
        fail("listen");
    getsockname(fd, (struct sockaddr *)&address, &length);
    printf("{\"port\": %u}\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static inline int connect_to(int fd, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(fd, (struct sockaddr *)&address, sizeof address);
}
