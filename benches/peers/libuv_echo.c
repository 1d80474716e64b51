// An echo server on libuv, as one would write it for speed: one buffer for all reads, and a write at once where the socket has room.
//
//   libuv_peer --listen HOST:PORT [--threads 1]
//
// Says "listening on HOST:PORT" on stderr.
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { BACKLOG = 4096, BUFFER_BYTES = 65536 };

// What a peer has not taken yet.
struct rest {
    uv_write_t request;
    char bytes[];
};

static char buffer[BUFFER_BYTES];

static void on_closed(uv_handle_t *conn) { free(conn); }

static void drop(uv_handle_t *conn) {
    if (!uv_is_closing(conn))
        uv_close(conn, on_closed);
}

static void on_wanted(uv_handle_t *conn, size_t wanted, uv_buf_t *into) {
    (void)conn, (void)wanted;
    *into = uv_buf_init(buffer, sizeof buffer);
}

static void on_read(uv_stream_t *conn, ssize_t got, const uv_buf_t *from);

static void on_written(uv_write_t *request, int status) {
    uv_stream_t *conn = request->handle;
    free(request);
    if (status < 0)
        drop((uv_handle_t *)conn);
    else if (!uv_is_closing((uv_handle_t *)conn))
        uv_read_start(conn, on_wanted, on_read);
}

// Keeps what was not written, and reads on when it is.
static void keep(uv_stream_t *conn, const char *bytes, size_t count) {
    struct rest *rest = malloc(sizeof *rest + count);
    if (!rest) {
        drop((uv_handle_t *)conn);
        return;
    }
    memcpy(rest->bytes, bytes, count);
    uv_buf_t out = uv_buf_init(rest->bytes, (unsigned)count);
    uv_read_stop(conn);
    if (uv_write(&rest->request, conn, &out, 1, on_written) < 0) {
        free(rest);
        drop((uv_handle_t *)conn);
    }
}

static void on_read(uv_stream_t *conn, ssize_t got, const uv_buf_t *from) {
    if (got < 0) {
        drop((uv_handle_t *)conn);
    } else if (got > 0) {
        uv_buf_t out = uv_buf_init(from->base, (unsigned)got);
        int put = uv_try_write(conn, &out, 1);
        if (put < 0 && put != UV_EAGAIN)
            drop((uv_handle_t *)conn);
        else if (put < got)
            keep(conn, from->base + (put > 0 ? put : 0), (size_t)(got - (put > 0 ? put : 0)));
    }
}

static void on_connection(uv_stream_t *listener, int status) {
    uv_tcp_t *conn = status < 0 ? NULL : malloc(sizeof *conn);
    if (!conn)
        return;
    uv_tcp_init(listener->loop, conn);
    if (uv_accept(listener, (uv_stream_t *)conn) < 0) {
        drop((uv_handle_t *)conn);
        return;
    }
    uv_tcp_nodelay(conn, 1);
    uv_read_start((uv_stream_t *)conn, on_wanted, on_read);
}

int main(int count, char **words) {
    char *text = NULL;
    for (int i = 1; i + 1 < count; i += 2) {
        if (!strcmp(words[i], "--listen"))
            text = words[i + 1];
        else if (strcmp(words[i], "--threads") || strcmp(words[i + 1], "1"))
            return fprintf(stderr, "%s %s is not known\n", words[i], words[i + 1]), 2;
    }
    char *colon = text ? strrchr(text, ':') : NULL;
    if (!colon)
        return fprintf(stderr, "libuv_peer --listen HOST:PORT\n"), 2;
    *colon = 0;
    signal(SIGPIPE, SIG_IGN);
    uv_tcp_t listener;
    struct sockaddr_in address;
    int length = sizeof address;
    uv_tcp_init(uv_default_loop(), &listener);
    if (uv_ip4_addr(text, atoi(colon + 1), &address) || uv_tcp_bind(&listener, (struct sockaddr *)&address, 0) ||
        uv_listen((uv_stream_t *)&listener, BACKLOG, on_connection) ||
        uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &length))
        return fprintf(stderr, "cannot listen on %s\n", text), 1;
    fprintf(stderr, "listening on %s:%d\n", text, ntohs(address.sin_port));
    return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
