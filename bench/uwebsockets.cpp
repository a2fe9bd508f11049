// A µWebSockets server: it echoes messages, and at /broadcast it sends them to all connections.
// bench/uwebsockets builds it.
//
// It has one thread, listens on a free port of 127.0.0.1, and uses epoll. Built with OpenSSL it speaks TLS, and its two
// arguments are the PEM files of a certificate and a key. Unless it is built without zlib, it compresses messages, each by
// itself, as Bun does.

#include "App.h"

#include <cstdio>

struct PerConnection {};

#ifdef LIBUS_NO_SSL
constexpr bool TLS = false;
#else
constexpr bool TLS = true;
#endif

using App = uWS::TemplatedApp<TLS>;
using Socket = uWS::WebSocket<TLS, true, PerConnection>;

// The maximum payload, and the maximum of data queued for a slow client.
constexpr unsigned LIMIT = 16 * 1024 * 1024;

static App::WebSocketBehavior<PerConnection> behavior() {
    App::WebSocketBehavior<PerConnection> behavior;
    behavior.maxPayloadLength = LIMIT;
    behavior.maxBackpressure = LIMIT;
#ifndef UWS_NO_ZLIB
    behavior.compression = uWS::CompressOptions(uWS::SHARED_COMPRESSOR | uWS::SHARED_DECOMPRESSOR);
#endif
    return behavior;
}

static void listening(us_listen_socket_t *listener) {
    if (!listener) {
        std::fputs("uwebsockets: cannot listen\n", stderr);
        std::exit(1);
    }
    int port = us_socket_local_port(TLS, reinterpret_cast<us_socket_t *>(listener));
    std::printf("listening on %s://127.0.0.1:%d/\n", TLS ? "wss" : "ws", port);
    std::fflush(stdout);
}

int main(int argc, char **argv) {
    uWS::SocketContextOptions options;
    if (TLS && argc == 3) {
        options.cert_file_name = argv[1];
        options.key_file_name = argv[2];
    }
    App app(options);
    if (app.constructorFailed()) {
        std::fputs("uwebsockets: the certificate or its key cannot be used\n", stderr);
        return 1;
    }
    auto echo = behavior();
    echo.message = [](Socket *socket, std::string_view message, uWS::OpCode opcode) {
        socket->send(message, opcode, true);
    };
    auto broadcast = behavior();
    broadcast.open = [](Socket *socket) { socket->subscribe("all"); };
    // `publish` of the socket would not send to the sender.
    broadcast.message = [&app](Socket *, std::string_view message, uWS::OpCode opcode) {
        app.publish("all", message, opcode);
    };
    app.ws<PerConnection>("/broadcast", std::move(broadcast));
    app.ws<PerConnection>("/*", std::move(echo));
    app.listen("127.0.0.1", 0, listening);
    app.run();
}
