// Node's ws as an echo server with permessage-deflate, at its default level.
import { WebSocketServer } from "ws";

// By default, ws does not compress messages below 1 KiB.
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: { threshold: 64 } });
server.on("connection", (socket) => {
  socket.on("message", (data, binary) => socket.send(data, { binary }));
});
server.on("listening", () => console.log(`listening on ws://127.0.0.1:${server.address().port}/`));
