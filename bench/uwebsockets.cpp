// A µWebSockets server: it echoes messages, and at /broadcast it sends them to all connections.
// bench/uwebsockets builds it.
//
// It has one thread, listens on a free port of 127.0.0.1, uses epoll, and has no TLS. Unless it is built without zlib,
// it compresses messages, each by itself, as Bun does.

#include "App.h"

#include <cstdio>

struct PerConnection {};

using Socket = uWS::WebSocket<false, true, PerConnection>;

// The maximum payload, and the maximum of data queued for a slow client.
constexpr unsigned LIMIT = 16 * 1024 * 1024;

static uWS::App::WebSocketBehavior<PerConnection> behavior() {
    uWS::App::WebSocketBehavior<PerConnection> behavior;
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
    int port = us_socket_local_port(0, reinterpret_cast<us_socket_t *>(listener));
    std::printf("listening on ws://127.0.0.1:%d/\n", port);
    std::fflush(stdout);
}

int main() {
    uWS::App app;
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
