// An echo server on libevent's buffered events, as one would write it: input moves to the output without being copied.
//
//   libevent_peer --listen HOST:PORT [--threads 1]
//
// Says "listening on HOST:PORT" on stderr.
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    BACKLOG = 4096,
    // By default 16 KiB: the other peers read up to 64.
    READ_BYTES = 65536,
    // Beyond this a peer that sends and does not read is not read either.
    OUTPUT_BYTES = 4 << 20,
};

static void on_readable(struct bufferevent *conn, void *unused) {
    (void)unused;
    struct evbuffer *output = bufferevent_get_output(conn);
    evbuffer_add_buffer(output, bufferevent_get_input(conn));
    if (evbuffer_get_length(output) > OUTPUT_BYTES)
        bufferevent_disable(conn, EV_READ);
}

// All is written.
static void on_written(struct bufferevent *conn, void *unused) {
    (void)unused;
    bufferevent_enable(conn, EV_READ);
}

static void on_event(struct bufferevent *conn, short what, void *unused) {
    (void)unused;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        bufferevent_free(conn);
}

static void on_connection(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int length,
                          void *unused) {
    (void)address, (void)length, (void)unused;
    struct bufferevent *conn = bufferevent_socket_new(evconnlistener_get_base(listener), fd, BEV_OPT_CLOSE_ON_FREE);
    if (!conn) {
        evutil_closesocket(fd);
        return;
    }
    bufferevent_set_max_single_read(conn, READ_BYTES);
    bufferevent_set_max_single_write(conn, READ_BYTES);
    bufferevent_setcb(conn, on_readable, on_written, on_event, NULL);
    bufferevent_enable(conn, EV_READ | EV_WRITE);
}

int main(int count, char **words) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    char *text = NULL;
    int on = 1;
    for (int i = 1; i + 1 < count; i += 2) {
        if (!strcmp(words[i], "--listen"))
            text = words[i + 1];
        else if (strcmp(words[i], "--threads") || strcmp(words[i + 1], "1"))
            return fprintf(stderr, "%s %s is not known\n", words[i], words[i + 1]), 2;
    }
    char *colon = text ? strrchr(text, ':') : NULL;
    if (colon)
        *colon = 0;
    if (!colon || evutil_inet_pton(AF_INET, text, &address.sin_addr) != 1)
        return fprintf(stderr, "libevent_peer --listen HOST:PORT\n"), 2;
    address.sin_port = htons((unsigned short)atoi(colon + 1));
    signal(SIGPIPE, SIG_IGN);
    struct event_config *config = event_config_new();
    // Changes of interest are collected and made before the next wait, which spares calls.
    event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST | EVENT_BASE_FLAG_NOLOCK);
    struct event_base *base = event_base_new_with_config(config);
    struct evconnlistener *listener =
        evconnlistener_new_bind(base, on_connection, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, BACKLOG,
                                (struct sockaddr *)&address, (int)length);
    if (!listener)
        return perror("listen"), 1;
    evutil_socket_t fd = evconnlistener_get_fd(listener);
    // Accepted sockets inherit TCP_NODELAY.
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    getsockname(fd, (struct sockaddr *)&address, &length);
    fprintf(stderr, "listening on %s:%d\n", text, ntohs(address.sin_port));
    event_base_dispatch(base);
}
