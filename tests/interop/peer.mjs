// Node's ws as a peer.
//
//   node peer.mjs client URL [EXTENSION]   sends messages, expects each back, closes with 4001; the
//                                          extension that the server must agree on, by default none
//   node peer.mjs server [CERT KEY]
//                               echoes, over TLS if there is a certificate; prints its port; closes with
//                               4002 on the text "close". Compresses if the client offers to
import assert from "node:assert/strict";
import { once } from "node:events";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { WebSocket, WebSocketServer } from "ws";

const sizes = [0, 1, 125, 126, 65535, 65536, 1 << 20];

// Messages that resemble each other, so that a context which is taken over matters.
const ticks = Array.from({ length: 200 }, (_, i) => JSON.stringify({ symbol: "ANY", price: i * 1.25, volume: 100 + i }));

async function client(url, extension = "") {
  const socket = new WebSocket(url);
  await once(socket, "open");
  assert.equal(socket.extensions, extension);
  const echoed = async (message, send) => {
    const answer = once(socket, "message");
    send();
    const [data, binary] = await answer;
    assert.equal(binary, typeof message !== "string");
    assert.ok(data.equals(Buffer.from(message)), `${message.length} come back`);
  };
  for (const size of sizes) {
    const bytes = randomBytes(size);
    await echoed(bytes, () => socket.send(bytes));
    const text = "é".repeat(size >> 1);
    await echoed(text, () => socket.send(text));
  }
  for (const tick of ticks) await echoed(tick, () => socket.send(tick));
  const [head, tail] = ["frag", "mented"];
  await echoed(head + tail, () => {
    socket.send(head, { fin: false });
    socket.ping("between");
    socket.send(tail, { fin: true });
  });
  const pong = once(socket, "pong");
  socket.ping("ping");
  assert.equal(String((await pong)[0]), "ping");
  const close = once(socket, "close");
  socket.close(4001, "done");
  const [code] = await close;
  assert.equal(code, 4001);
}

async function server(cert, key) {
  let carrier;
  if (cert) {
    carrier = createServer({ cert: readFileSync(cert), key: readFileSync(key) });
    carrier.listen(0, "127.0.0.1");
  }
  const options = carrier ? { server: carrier } : { host: "127.0.0.1", port: 0 };
  const server = new WebSocketServer({ ...options, perMessageDeflate: { threshold: 0 } });
  server.on("connection", (socket) => {
    socket.on("message", (data, binary) => {
      if (String(data) === "close") return socket.close(4002, "as you wish");
      const half = data.length >> 1;
      socket.send(data.subarray(0, half), { fin: false, binary });
      socket.ping("are you there");
      socket.send(data.subarray(half), { fin: true, binary });
    });
  });
  await once(server, "listening");
  console.log(server.address().port);
}

const [role, ...rest] = process.argv.slice(2);
await (role === "server" ? server(...rest) : client(...rest));
