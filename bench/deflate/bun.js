// Bun as an echo server with permessage-deflate. Its WebSockets are µWebSockets.
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch(request, server) {
    if (!server.upgrade(request)) return new Response("this is for WebSockets", { status: 426 });
  },
  websocket: {
    perMessageDeflate: true,
    message(socket, data) {
      socket.send(data, true);
    },
  },
});
console.log(`listening on ws://127.0.0.1:${server.port}/`);
