// The floor to measure against: an echo server on bare epoll. Level-triggered; each thread has one static buffer; a read and a write per event.
//
//   epoll_echo --listen HOST:PORT [--threads N] [--discard]
//
// Says "listening on HOST:PORT" on stderr. With --discard it reads and sends nothing back. Thread 0 accepts and deals connections out in turn.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BUFFER_BYTES = 65536,
    EVENTS = 1024,
    THREADS_MAX = 64,
    // Above the descriptor limit of any machine that this is run on; one pointer each.
    DESCRIPTORS_MAX = 1 << 20,
};

// What a peer has not taken yet. While a connection has some it is not read.
struct rest {
    size_t from, to;
    char bytes[];
};

static struct rest *rests[DESCRIPTORS_MAX];
static __thread char buffer[BUFFER_BYTES];
static int polls[THREADS_MAX];
static int threads = 1, discard = 0, listener = -1;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void drop(int fd) {
    free(rests[fd]);
    rests[fd] = NULL;
    close(fd);
}

static void watch(int poll, int fd, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poll, EPOLL_CTL_MOD, fd, &event) != 0)
        drop(fd);
}

// Keeps what was not written, and waits for room instead of input.
static void keep(int poll, int fd, const char *bytes, size_t count) {
    struct rest *rest = malloc(sizeof *rest + count);
    if (!rest) {
        drop(fd);
        return;
    }
    rest->from = 0;
    rest->to = count;
    memcpy(rest->bytes, bytes, count);
    rests[fd] = rest;
    watch(poll, fd, EPOLLOUT);
}

static void on_readable(int poll, int fd) {
    ssize_t got = read(fd, buffer, sizeof buffer);
    if (got > 0) {
        if (discard)
            return;
        ssize_t put = write(fd, buffer, (size_t)got);
        if (put == got)
            return;
        if (put < 0 && errno != EAGAIN && errno != EINTR)
            drop(fd);
        else
            keep(poll, fd, buffer + (put > 0 ? put : 0), (size_t)(got - (put > 0 ? put : 0)));
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        drop(fd);
    }
}

static void on_writable(int poll, int fd) {
    struct rest *rest = rests[fd];
    ssize_t put = write(fd, rest->bytes + rest->from, rest->to - rest->from);
    if (put < 0) {
        if (errno != EAGAIN && errno != EINTR)
            drop(fd);
        return;
    }
    rest->from += (size_t)put;
    if (rest->from == rest->to) {
        free(rest);
        rests[fd] = NULL;
        watch(poll, fd, EPOLLIN);
    }
}

static void on_connection(void) {
    static int next = 0;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (fd >= DESCRIPTORS_MAX) {
        close(fd);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(polls[next], EPOLL_CTL_ADD, fd, &event) != 0)
        close(fd);
    next = (next + 1) % threads;
}

static void *loop(void *argument) {
    int poll = *(int *)argument;
    static __thread struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                on_connection();
            else if (rests[fd])
                on_writable(poll, fd);
            else
                on_readable(poll, fd);
        }
    }
    return NULL;
}

static void listen_on(char *text) {
    char *colon = strrchr(text, ':');
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    if (!colon)
        die("--listen wants HOST:PORT");
    *colon = 0;
    address.sin_port = htons((unsigned short)atoi(colon + 1));
    if (inet_pton(AF_INET, text, &address.sin_addr) != 1)
        die("--listen wants an IPv4 address");
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    // Accepted sockets inherit TCP_NODELAY.
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
        setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) ||
        bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&address, &length))
        die("listen");
    fprintf(stderr, "listening on %s:%d\n", text, ntohs(address.sin_port));
}

int main(int count, char **words) {
    char *listen_text = NULL;
    for (int i = 1; i < count; i++) {
        if (!strcmp(words[i], "--listen") && i + 1 < count)
            listen_text = words[++i];
        else if (!strcmp(words[i], "--threads") && i + 1 < count)
            threads = atoi(words[++i]);
        else if (!strcmp(words[i], "--discard"))
            discard = 1;
        else
            return fprintf(stderr, "%s is not known\n", words[i]), 2;
    }
    if (!listen_text || threads < 1 || threads > THREADS_MAX)
        return fprintf(stderr, "epoll_echo --listen HOST:PORT [--threads N] [--discard]\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < threads; i++)
        if ((polls[i] = epoll_create1(EPOLL_CLOEXEC)) < 0)
            die("epoll_create1");
    listen_on(listen_text);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    if (epoll_ctl(polls[0], EPOLL_CTL_ADD, listener, &event))
        die("epoll_ctl");
    for (int i = 1; i < threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, loop, &polls[i]))
            die("pthread_create");
    }
    loop(&polls[0]);
}
