// An echo server on asio, as one would write it: a session with a buffer of its own for each connection, one thread.
//
//   asio_peer --listen HOST:PORT [--threads 1]
//
// Says "listening on HOST:PORT" on stderr.
#include <asio.hpp>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

using asio::ip::tcp;

namespace {

constexpr std::size_t buffer_bytes = 65536;

class Session : public std::enable_shared_from_this<Session> {
  public:
    explicit Session(tcp::socket socket) : socket_(std::move(socket)), buffer_(new char[buffer_bytes]) {}

    void read() {
        auto self = shared_from_this();
        socket_.async_read_some(asio::buffer(buffer_.get(), buffer_bytes),
                                [self](std::error_code error, std::size_t got) {
                                    if (!error)
                                        self->write(got);
                                });
    }

  private:
    void write(std::size_t count) {
        auto self = shared_from_this();
        asio::async_write(socket_, asio::buffer(buffer_.get(), count), [self](std::error_code error, std::size_t) {
            if (!error)
                self->read();
        });
    }

    tcp::socket socket_;
    // Not zeroed: only the pages that are used become resident.
    std::unique_ptr<char[]> buffer_;
};

void accept(tcp::acceptor &acceptor) {
    acceptor.async_accept([&acceptor](std::error_code error, tcp::socket socket) {
        if (!error) {
            socket.set_option(tcp::no_delay(true), error);
            std::make_shared<Session>(std::move(socket))->read();
        }
        accept(acceptor);
    });
}

} // namespace

int main(int count, char **words) {
    std::string text;
    for (int i = 1; i + 1 < count; i += 2) {
        if (!std::strcmp(words[i], "--listen"))
            text = words[i + 1];
        else if (std::strcmp(words[i], "--threads") || std::strcmp(words[i + 1], "1"))
            return std::fprintf(stderr, "%s %s is not known\n", words[i], words[i + 1]), 2;
    }
    auto colon = text.rfind(':');
    if (colon == std::string::npos)
        return std::fprintf(stderr, "asio_peer --listen HOST:PORT\n"), 2;
    try {
        // One thread only: asio may leave out its locks.
        asio::io_context context(1);
        auto address = asio::ip::make_address(text.substr(0, colon));
        auto port = static_cast<unsigned short>(std::stoi(text.substr(colon + 1)));
        tcp::acceptor acceptor(context, tcp::endpoint(address, port));
        acceptor.listen(4096);
        std::fprintf(stderr, "listening on %s:%d\n", text.substr(0, colon).c_str(), acceptor.local_endpoint().port());
        accept(acceptor);
        context.run();
    } catch (const std::exception &error) {
        return std::fprintf(stderr, "asio_peer: %s\n", error.what()), 1;
    }
}
