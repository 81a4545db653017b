// Serves the SurrealDB engine of the npm package @surrealdb/node on loopback, as a SurrealDB server would:
// CBOR-RPC over WebSocket and HTTP at /rpc. For tests only.
//
//   node server.mjs --modules DIR --store mem|surrealkv|rocksdb [--path DIR] [--port N] [--stop-with-parent]
//
// Messages pass through as the bytes they are: of a request only method and session are read, of a
// notification only whose it is.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

const HOST = "127.0.0.1";

const { values: options } = parseArgs({
  options: {
    modules: { type: "string" },
    store: { type: "string", default: "mem" },
    path: { type: "string" },
    port: { type: "string", default: "0" },
    username: { type: "string", default: "root" },
    password: { type: "string", default: "root" },
    "stop-with-parent": { type: "boolean", default: false },
  },
});

function fail(sentence) {
  process.stderr.write(`engine: ${sentence}\n`);
  process.exit(1);
}

if (!options.modules) fail("--modules is missing: give the directory where npm installed package.json");
if (!["mem", "surrealkv", "rocksdb"].includes(options.store)) {
  fail(`--store is '${options.store}': choose mem, surrealkv or rocksdb`);
}
if ((options.store === "mem") !== (options.path === undefined)) {
  fail("--path and a store that keeps its data (surrealkv, rocksdb) need each other");
}

// The package's own entry loads a JavaScript SDK that a pipe has no use for; the engine is the binary beside it.
const require = createRequire(join(resolve(options.modules), "package.json"));
function platform() {
  const { platform: system, arch, report } = process;
  if (system === "darwin") return `darwin-${arch}`;
  if (system === "win32") return `win32-${arch}-msvc`;
  return `linux-${arch}-${report.getReport().header.glibcVersionRuntime ? "gnu" : "musl"}`;
}
const { WebSocketServer } = require("ws");
const binding = join(
  resolve(options.modules), "node_modules", "@surrealdb", "node", "dist", `surrealdb-node.${platform()}.node`,
);
const { SurrealNodeEngine } = require(binding);

// --- CBOR, as far as a pipe needs it -------------------------------------------------------------------

class RpcError extends Error {
  constructor(code, message, kind = "Internal", details = null) {
    super(message);
    Object.assign(this, { code, kind, details });
  }
}

const malformed = () => new RpcError(-32700, "Parse error", "Validation");

function head(data, at) {
  if (at >= data.length) throw malformed();
  const major = data[at] >> 5;
  const info = data[at] & 31;
  if (info < 24) return [major, info, at + 1];
  if (info === 31) return [major, null, at + 1];
  const size = 1 << (info - 24);
  if (size > 8 || at + 1 + size > data.length) throw malformed();
  const argument = size === 8 ? Number(data.readBigUInt64BE(at + 1)) : data.readUIntBE(at + 1, size);
  return [major, argument, at + 1 + size];
}

// Where the item that begins at `at` ends.
function skip(data, at) {
  const open = [1]; // items still to read on each level; null: until a break
  while (open.length) {
    const last = open.length - 1;
    if (open[last] === 0) {
      open.pop();
      continue;
    }
    const [major, argument, content] = head(data, at);
    at = content;
    if (major === 7 && argument === null) {
      if (open.pop() !== null) throw malformed();
      continue;
    }
    if (open[last] !== null) open[last] -= 1;
    if (major === 2 || major === 3) {
      if (argument === null) open.push(null);
      else at += argument;
    } else if (major === 4) open.push(argument);
    else if (major === 5) open.push(argument === null ? null : argument * 2);
    else if (major === 6) open.push(1);
  }
  if (at > data.length) throw malformed();
  return at;
}

// A map's values as their bytes, by key (all keys that matter here are texts).
function pairs(data) {
  const [major, count, content] = head(data, 0);
  if (major !== 5) throw new RpcError(-32600, "Invalid Request", "Validation");
  const found = new Map();
  let at = content;
  for (let read = 0; count === null ? data[at] !== 0xff : read < count; read += 1) {
    const value = skip(data, at);
    const end = skip(data, value);
    found.set(text(data.subarray(at, value)), data.subarray(value, end));
    at = end;
  }
  return found;
}

function text(data) {
  const [major, length, content] = head(data, 0);
  return major === 3 && length !== null ? data.subarray(content, content + length).toString() : undefined;
}

// A UUID as text, from any of the forms it has on the wire; undefined for NONE and NULL.
function uuid(data) {
  if (data === undefined) return undefined;
  const plain = text(data);
  if (plain !== undefined) return plain;
  const [major, , content] = head(data, 0);
  if (major !== 6) return undefined;
  const inside = data.subarray(content);
  if (text(inside) !== undefined) return text(inside);
  const [kind, length, bytes] = head(inside, 0);
  if (kind !== 2 || length !== 16) return undefined;
  const hex = inside.subarray(bytes, bytes + 16).toString("hex");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

const header = (major, count) => {
  if (count < 24) return Buffer.from([(major << 5) | count]);
  const bytes = Buffer.alloc(5);
  bytes[0] = (major << 5) | 26;
  bytes.writeUInt32BE(count, 1);
  return bytes;
};

// What our own messages are made of; a Buffer is encoded already.
function encode(value) {
  if (Buffer.isBuffer(value)) return value;
  if (value === null) return NONE;
  if (typeof value === "number") return value < 0 ? header(1, -1 - value) : header(0, value);
  if (typeof value === "string") {
    const bytes = Buffer.from(value);
    return Buffer.concat([header(3, bytes.length), bytes]);
  }
  if (Array.isArray(value)) return Buffer.concat([header(4, value.length), ...value.map(encode)]);
  const entries = value instanceof Map ? [...value] : Object.entries(value);
  return Buffer.concat([header(5, entries.length), ...entries.flat().map(encode)]);
}

const NONE = Buffer.from([0xc6, 0xf6]);
const ERROR_REPLY = Buffer.concat([Buffer.from([0xa1]), encode("error")]);

// --- Sessions ------------------------------------------------------------------------------------------

const OPEN_METHODS = new Set([
  "ping", "version", "use", "signin", "signup", "authenticate", "invalidate", "reset", "attach", "detach",
  "let", "set", "unset",
]);

const engine = await SurrealNodeEngine.connect(
  options.store === "mem" ? "mem://" : `${options.store}://${resolve(options.path)}`,
).catch((error) => fail(
  /lock/i.test(error.message)
    ? `--path is '${options.path}', which another process has open: give another directory`
    : `the engine could not open --path '${options.path}': ${error.message}`,
));

async function run(method, params, session) {
  const request = { id: "0", method, params, ...(session && { session }) };
  const reply = Buffer.from(await engine.execute(encode(request)));
  if (reply.subarray(0, ERROR_REPLY.length).equals(ERROR_REPLY)) {
    throw new RpcError(-32000, text(pairs(pairs(reply).get("error")).get("message")));
  }
  return reply;
}

const owners = new Map(); // session -> the connection whose LIVE notifications it gets

class Connection {
  constructor(send = () => {}) {
    this.send = send;
    this.own = randomUUID();
    this.signedIn = new Map(); // session -> whether somebody signed in
  }

  async open() {
    await this.attach(this.own);
  }

  async attach(session) {
    await run("attach", [], session);
    owners.set(session, this);
    this.signedIn.set(session, false);
  }

  async answer(data) {
    let id = NONE;
    try {
      const request = pairs(data);
      id = request.get("id") ?? NONE;
      const reply = await this.execute(request);
      if (reply.subarray(0, ERROR_REPLY.length).equals(ERROR_REPLY)) {
        return encode({ id, error: reply.subarray(ERROR_REPLY.length) });
      }
      return encode({ id, result: reply });
    } catch (error) {
      const { code = -32000, message, kind = "Internal", details = null } = error;
      return encode({ id, error: { code: Number(code) || -32000, message, kind, details } });
    }
  }

  async execute(request) {
    const method = text(request.get("method") ?? NONE);
    if (method === undefined) throw new RpcError(-32600, "Invalid Request", "Validation");
    const session = uuid(request.get("session")) ?? this.own;
    if (method === "attach") {
      await this.attach(session);
      return NONE;
    }
    if (!this.signedIn.has(session)) {
      const details = { kind: "Session", details: { id: session } };
      throw new RpcError(-32000, `Session not found: ${session}`, "NotFound", details);
    }
    // The engine of the package knows no guests: its anonymous session may do everything.
    if (!this.signedIn.get(session) && !OPEN_METHODS.has(method)) {
      throw new RpcError(
        -32002, "Anonymous access not allowed: Not enough permissions to perform this action", "NotAllowed",
        { kind: "Auth", details: { kind: "NotAllowed", details: { actor: "anonymous", action: "process", resource: "query" } } },
      );
    }
    request.set("session", encode(session));
    const reply = Buffer.from(await engine.execute(encode(request)));
    const failed = reply.subarray(0, ERROR_REPLY.length).equals(ERROR_REPLY);
    if (!failed) this.follow(method, session);
    return reply;
  }

  follow(method, session) {
    if (["signin", "signup", "authenticate"].includes(method)) this.signedIn.set(session, true);
    if (["invalidate", "reset"].includes(method)) this.signedIn.set(session, false);
    if (method === "detach") {
      owners.delete(session);
      this.signedIn.delete(session);
    }
  }

  // Ends the sessions and with them their LIVE queries.
  async close() {
    for (const session of this.signedIn.keys()) {
      owners.delete(session);
      await run("reset", [], session).catch(() => {});
      await run("detach", [], session).catch(() => {});
    }
    this.signedIn.clear();
  }
}

const RESULT = encode("result");
async function deliver(receiver) {
  for (;;) {
    const notification = await receiver.recv();
    if (notification === null) return;
    const data = Buffer.from(notification);
    owners.get(uuid(pairs(data).get("session")))?.send(Buffer.concat([Buffer.from([0xa1]), RESULT, data]));
  }
}
deliver(await engine.notifications());

const name = "`" + options.username.replace(/[\\`]/g, "\\$&") + "`";
await run("query", [
  `DEFINE USER IF NOT EXISTS ${name} ON ROOT PASSWORD ${JSON.stringify(options.password)} ROLES OWNER`, {},
]);

// --- The server ----------------------------------------------------------------------------------------

const busy = new Set(); // what has to end before the engine may
const track = (work) => {
  busy.add(work);
  work.finally(() => busy.delete(work));
  return work;
};

async function post(request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const connection = new Connection();
  await connection.open();
  try {
    try {
      await applyHeaders(connection, request.headers);
    } catch (error) {
      response.writeHead(401, { "Content-Type": "text/plain" }).end(`${error.message}\n`);
      return;
    }
    const reply = await connection.answer(Buffer.concat(chunks));
    response.writeHead(200, { "Content-Type": "application/cbor" }).end(reply);
  } finally {
    await connection.close();
  }
}

async function applyHeaders(connection, headers) {
  const [scheme, credentials = ""] = (headers.authorization ?? "").split(" ");
  if (scheme.toLowerCase() === "bearer") {
    await run("authenticate", [credentials], connection.own);
    connection.follow("authenticate", connection.own);
  } else if (scheme.toLowerCase() === "basic") {
    const [user, ...rest] = Buffer.from(credentials, "base64").toString().split(":");
    const level = {};
    if (headers["surreal-auth-ns"]) level.ns = headers["surreal-auth-ns"];
    if (headers["surreal-auth-db"]) level.db = headers["surreal-auth-db"];
    await run("signin", [{ ...level, user, pass: rest.join(":") }], connection.own);
    connection.follow("signin", connection.own);
  }
  const names = ["surreal-ns", "surreal-db"].map((header) => headers[header] ?? null);
  if (names.some((given) => given !== null)) await run("use", names, connection.own);
}

const http = createServer((request, response) => {
  const path = request.url.split("?")[0];
  if (request.method === "POST" && path === "/rpc") {
    track(post(request, response).catch((error) => response.writeHead(500).end(`${error.message}\n`)));
  } else if (request.method === "GET" && path === "/health") response.end();
  else if (request.method === "GET" && path === "/version") response.end(`surrealdb-${SurrealNodeEngine.version()}`);
  else response.writeHead(404).end();
});

const sockets = new WebSocketServer({
  server: http,
  path: "/rpc",
  maxPayload: 0, // results may be of any size
  handleProtocols: (offered) => (offered.has("cbor") ? "cbor" : false),
});

sockets.on("connection", (socket) => {
  const connection = new Connection((data) => socket.send(data));
  const opened = connection.open();
  const pending = new Set();
  socket.on("message", (data, isBinary) => {
    if (!isBinary) {
      socket.close(1003, "send CBOR");
      return;
    }
    // Messages that come before the session is there wait for it, in their order.
    const answered = opened.then(() => connection.answer(data)).then((reply) => socket.send(reply));
    pending.add(answered);
    track(answered.catch(() => {})).finally(() => pending.delete(answered));
  });
  socket.on("error", () => {});
  // What was begun is finished: a write that is half way is not taken back by a lost connection.
  socket.on("close", () => track(Promise.allSettled([opened, ...pending]).then(() => connection.close())));
});

let stopping = false;
async function stop() {
  if (stopping) return;
  stopping = true;
  http.close();
  http.closeIdleConnections();
  for (const socket of sockets.clients) socket.close(1001, "stopped");
  // A client that does not answer the close is cut off.
  setTimeout(() => sockets.clients.forEach((socket) => socket.terminate()), 2000).unref();
  await new Promise((done) => { sockets.close(done); });
  while (busy.size) await Promise.allSettled([...busy]);
  await engine.free();
  process.exit(0);
}

process.on("SIGINT", stop);
process.on("SIGTERM", stop);
if (options["stop-with-parent"]) process.stdin.on("end", stop).resume();

http.on("error", (error) => fail(
  error.code === "EADDRINUSE" ? `--port ${options.port} is in use: choose another` : error.message,
));
http.listen(Number(options.port), HOST, () => {
  process.stdout.write(`ready: ws://${HOST}:${http.address().port}/rpc\n`);
});
