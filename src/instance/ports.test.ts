import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { test } from "node:test";
import { choosePorts, parsePortForward, portError } from "./ports.ts";

test("a published port belongs to this machine alone, unless an address says otherwise", () => {
  assert.deepEqual(parsePortForward("8080:80"), { hostAddress: "127.0.0.1", hostPort: 8080, guestPort: 80 });
  assert.deepEqual(parsePortForward("0.0.0.0:1:65535"), { hostAddress: "0.0.0.0", hostPort: 1, guestPort: 65535 });
});

test("a host port may be left open", () => {
  const any = { hostAddress: "127.0.0.1", hostPort: 0, guestPort: 80 };
  for (const text of ["80", "0:80", "127.0.0.1::80", "127.0.0.1:0:80"]) assert.deepEqual(parsePortForward(text), any);
  assert.deepEqual(parsePortForward("0.0.0.0::80"), { ...any, hostAddress: "0.0.0.0" });
});

test("what is no port mapping is refused", () => {
  const refused = [
    "",
    "0",
    "80:",
    ":80",
    "127.0.0.1:80",
    "80::90",
    "80:0",
    "65536:80",
    "80:65536",
    "a:80",
    "80:80/udp",
    "-1:80",
    "8080:80:90",
    "300.1.1.1:80:80",
    "1.2.3:80:80",
    "[::1]:80:80",
    "localhost:80:80",
  ];
  for (const text of refused) assert.throws(() => parsePortForward(text), { code: "INVALID_PORT" }, text);
});

test("a port in use is found before anything is started, and named", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  try {
    const taken = parsePortForward(`${port}:80`);
    await assert.rejects(choosePorts([taken]), {
      code: "PORT_IN_USE",
      message: `port ${port} of 127.0.0.1 is in use by another program`,
    });
    await assert.rejects(choosePorts([{ ...taken, hostAddress: "0.0.0.0" }]), { code: "PORT_IN_USE" });
  } finally {
    server.close();
    await once(server, "close");
  }
  await choosePorts([parsePortForward(`${port}:80`)]);
});

test("host ports that were left open are free ones, each another, and those that were named stay", async () => {
  const [named] = await choosePorts([parsePortForward("80")]);
  assert.ok(named && named.hostPort > 0);
  const asked = ["80", "0.0.0.0::80", `${named.hostPort}:81`, "82"].map(parsePortForward);
  asked.push(asked[0]!);
  const chosen = await choosePorts(asked);
  assert.deepEqual(
    chosen.map(({ hostAddress, guestPort }) => [hostAddress, guestPort]),
    asked.map(({ hostAddress, guestPort }) => [hostAddress, guestPort]),
  );
  assert.equal(chosen[2]?.hostPort, named.hostPort);
  assert.equal(new Set(chosen.map(({ hostPort }) => hostPort)).size, 5);
  assert.deepEqual(await choosePorts(chosen), chosen, "nobody holds them any more");
});

test("one host port can't be published twice", async () => {
  const once80 = parsePortForward("18080:80");
  await assert.rejects(choosePorts([once80, parsePortForward("18080:81")]), {
    code: "INVALID_PORT",
    message: /18080 is published twice/,
  });
  await assert.rejects(choosePorts([once80, parsePortForward("0.0.0.0:18080:80")]), { code: "INVALID_PORT" });
});

test("an address that is not this machine's is named", async () => {
  await assert.rejects(choosePorts([parsePortForward("192.0.2.1:18081:80")]), {
    code: "INVALID_PORT",
    message: /192\.0\.2\.1 is no address of this machine/,
  });
});

test("a failed bind is told in the words of whoever published the port", () => {
  const error = (code: string) => Object.assign(new Error(code), { code });
  assert.deepEqual(
    ["EADDRINUSE", "EACCES", "EADDRNOTAVAIL"].map(
      (code) => (portError(error(code), "127.0.0.1", 80) as { code: string }).code,
    ),
    ["PORT_IN_USE", "PORT_FORBIDDEN", "INVALID_PORT"],
  );
  const other = error("ENOMEM");
  assert.equal(portError(other, "127.0.0.1", 80), other);
});
