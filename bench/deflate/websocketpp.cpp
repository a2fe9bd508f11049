// A WebSocket++ echo server with permessage-deflate, at its only level. bench/deflate/peers builds it.

#include <cstdio>

#include <websocketpp/config/asio_no_tls.hpp>
#include <websocketpp/extensions/permessage_deflate/enabled.hpp>
#include <websocketpp/server.hpp>

struct Config : websocketpp::config::asio {
    struct permessage_deflate_config {};
    using permessage_deflate_type =
        websocketpp::extensions::permessage_deflate::enabled<permessage_deflate_config>;
    static websocketpp::log::level const alog_level = websocketpp::log::alevel::none;
    static websocketpp::log::level const elog_level = websocketpp::log::elevel::none;
};

using Server = websocketpp::server<Config>;

int main() {
    Server server;
    server.init_asio();
    server.set_tcp_post_init_handler([&server](websocketpp::connection_hdl handle) {
        server.get_con_from_hdl(handle)->get_raw_socket().set_option(asio::ip::tcp::no_delay(true));
    });
    server.set_message_handler([&server](websocketpp::connection_hdl handle, Server::message_ptr message) {
        websocketpp::lib::error_code error;
        server.send(handle, message->get_payload(), message->get_opcode(), error);
    });
    server.listen(asio::ip::tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    server.start_accept();
    asio::error_code error;
    std::printf("listening on ws://127.0.0.1:%d/\n", server.get_local_endpoint(error).port());
    std::fflush(stdout);
    server.run();
}
