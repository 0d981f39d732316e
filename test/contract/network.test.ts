import assert from "node:assert/strict";
import { chownSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, symlinkSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { findProgram, run, spawnChecked } from "../../src/core/process.ts";
import { findVmProcesses, signalProcess } from "../../src/core/process-identity.ts";
import { type StartedNetwork, startNetwork } from "../../src/host/network.ts";
import { HERE, OUTSIDE, type Outside, PORT, startOutside } from "../support/outside.ts";
import { startTapGuest, type TapGuest } from "../support/tap-guest.ts";
import { freePort, until } from "../support/wait.ts";

const missing = ["slirp4netns", "ip", "socat", "nsenter"].filter((program) => !findProgram(program, process.env));
const skip =
  process.getuid?.() !== 0
    ? "needs root: it makes a second machine to connect to"
    : missing.length > 0
      ? `needs ${missing.join(", ")}`
      : false;

const METADATA = "169.254.169.254";
const NOBODY = 65534;
/** Takes a tap as Firecracker does: TUNSETIFF with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR (linux/if_tun.h). */
const OPEN_TAP = `open(F, "+<", "/dev/net/tun") && ioctl(F, 0x400454ca, pack("a16 S x22", $ARGV[0], 0x5002)) or die "$!"`;
/** The kernel limits how often it says so: then the connection waits in vain. */
const BLOCKED = /^(No route to host|Connection timed out|Network is unreachable|Connection refused)$/;

let outside: Outside;
before(async () => {
  if (!skip) outside = await startOutside();
});
after(() => outside?.[Symbol.dispose]());

describe("a VM's network, with a stand-in for the guest", { skip }, () => {
  let root: string;
  const networks: StartedNetwork[] = [];
  const guests: TapGuest[] = [];
  const servers: Server[] = [];
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "mvm-network-"));
  });
  afterEach(async () => {
    for (const server of servers.splice(0)) server.close();
    for (const guest of guests.splice(0)) guest[Symbol.dispose]();
    for (const network of networks.splice(0)) await network.stop();
    assert.deepEqual(findVmProcesses(root), []);
    rmSync(root, { recursive: true, force: true });
  });

  async function start(options: { ports?: readonly (readonly [number, number])[]; allow?: string[] } = {}) {
    const directory = mkdtempSync(join(root, "vm-"));
    const forwards = (options.ports ?? []).map(([hostPort, guestPort]) => ({
      hostAddress: "127.0.0.1",
      hostPort,
      guestPort,
    }));
    const network = await startNetwork({ directory, forwards, env: process.env, allow: options.allow ?? [] });
    networks.push(network);
    const guest = await startTapGuest(network, directory, process.env);
    guests.push(guest);
    return { directory, network, guest };
  }
  /** What a guest reads from a TCP server, or why it can't. */
  const ask = async (guest: TapGuest, address: string, port: number) => {
    const { stdout, stderr } = await guest.run("socat", ["-T5", "-", `TCP:${address}:${port},connect-timeout=2`]);
    return stdout.trim() || /socat\[\d+\] E .*: (.*)$/m.exec(stderr)?.[1];
  };
  const serveHere = async (address: string, port: number) => {
    const server = createServer((socket) => socket.end("the host\n"));
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(port, address, resolve));
  };

  test("a guest reaches servers outside, and published ports reach the guest", async () => {
    const port = await freePort();
    const { guest } = await start({ ports: [[port, 80]] });
    assert.equal(await ask(guest, OUTSIDE, PORT), "the outside");
    await guest.serve(80, "the guest");
    assert.equal((await run("socat", ["-T5", "-", `TCP:127.0.0.1:${port}`])).stdout, "the guest\n");
  });

  test("the cloud's metadata and the host's own services are out of reach", async () => {
    await serveHere("0.0.0.0", PORT);
    await outside.run("ip", ["address", "add", `${METADATA}/32`, "dev", "lo"]);
    await run("ip", ["route", "add", METADATA, "via", OUTSIDE]);
    assert.equal(
      (await run("socat", ["-T5", "-", `TCP:${METADATA}:${PORT}`])).stdout,
      "the outside\n",
      "the host reaches it",
    );
    const { guest } = await start();
    const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
    const own = addresses
      .filter(({ family, internal }) => family === "IPv4" && !internal)
      .map(({ address }) => address);
    assert.ok(own.includes(HERE));
    for (const address of [METADATA, ...own]) assert.match((await ask(guest, address, PORT)) ?? "", BLOCKED, address);
    // The host's loopback, the name server's other ports, and what is the guest's own.
    for (const address of ["10.0.2.2", "10.0.2.3", "10.0.2.100", "127.0.0.1"])
      assert.match((await ask(guest, address, PORT)) ?? "", BLOCKED, address);
    assert.match((await guest.run("ip", ["-6", "route", "get", "fd00:ec2::254"])).stderr, /unreachable/);
  });

  test("what is allowed is not blocked, and nothing else opens", async () => {
    await serveHere("0.0.0.0", PORT);
    await outside.run("ip", ["address", "replace", `${METADATA}/32`, "dev", "lo"]);
    await run("ip", ["route", "replace", METADATA, "via", OUTSIDE]);
    const metadata = (await start({ allow: [METADATA] })).guest;
    assert.equal(await ask(metadata, METADATA, PORT), "the outside");
    assert.match((await ask(metadata, HERE, PORT)) ?? "", BLOCKED);
    const host = (await start({ allow: [HERE, "10.0.2.2"] })).guest;
    assert.equal(await ask(host, HERE, PORT), "the host");
    assert.equal(await ask(host, "10.0.2.2", PORT), "the host");
    assert.match((await ask(host, METADATA, PORT)) ?? "", BLOCKED);
  });

  test("two at once have the same addresses, and do not see each other", async () => {
    const [one, two] = [await freePort(), await freePort()];
    const first = await start({ ports: [[one, 80]] });
    const second = await start({ ports: [[two, 80]] });
    await first.guest.serve(80, "first");
    await second.guest.serve(80, "second");
    for (const [port, answer] of [
      [one, "first\n"],
      [two, "second\n"],
    ] as const)
      assert.equal((await run("socat", ["-T5", "-", `TCP:127.0.0.1:${port}`])).stdout, answer);
    assert.equal(await ask(first.guest, OUTSIDE, PORT), "the outside");
    assert.equal(await ask(second.guest, OUTSIDE, PORT), "the outside");
  });

  test("the network ends with the hypervisor, however that ends, and leaves nothing", async () => {
    const links = await interfaces();
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      const { directory, network, guest } = await start({ ports: [[await freePort(), 80]] });
      const namespace = readlinkSync(network.netns);
      assert.ok(usersOf(namespace).length > 0);
      assert.equal(findVmProcesses(directory).length, 2);
      network.release();
      assert.equal(await ask(guest, OUTSIDE, PORT), "the outside", "after release it lives on");
      process.kill(guest.hypervisor, signal);
      await until("no process of it is left", () => findVmProcesses(directory).length === 0, 5000);
      await until("nobody is in the namespace", () => usersOf(namespace).length === 0, 5000);
      assert.deepEqual(
        readdirSync(directory).filter((name) => name !== "wire"),
        ["network.log"],
      );
    }
    assert.deepEqual(await interfaces(), links);
  });

  test("killed before it had a hypervisor, at any moment, mvmctl leaves nothing", async () => {
    const program = `
      const { startNetwork } = await import(${JSON.stringify(join(import.meta.dirname, "../../src/host/network.ts"))});
      console.log("begins");
      await startNetwork({ directory: ${JSON.stringify(root)}, forwards: [], env: process.env });
      console.log("started");
      setInterval(() => {}, 1000);`;
    for (let round = 0; round < 12; round++) {
      const child = await spawnChecked(process.execPath, ["--input-type=module", "-e", program], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      const output = text(child.stdout!);
      await new Promise((resolve) => child.stdout!.once("data", resolve));
      await new Promise((resolve) => setTimeout(resolve, round * 12));
      child.kill("SIGKILL");
      await output;
      await until("no process of it is left", () => findVmProcesses(root).length === 0, 5000);
    }
  });

  test("stop ends it at once, also when all its processes were killed", async () => {
    const { directory, network } = await start();
    for (const process of findVmProcesses(directory)) signalProcess(process, "SIGKILL");
    await network.stop();
    assert.deepEqual(findVmProcesses(directory), []);
    const again = await start();
    await again.network.stop();
    assert.deepEqual(findVmProcesses(again.directory), []);
  });

  test("a port that is taken is named, and nothing stays behind", async () => {
    const port = await freePort();
    await serveHere("127.0.0.1", port);
    await assert.rejects(start({ ports: [[port, 80]] }), {
      code: "PORT_IN_USE",
      message: new RegExp(`port ${port} of 127.0.0.1`),
    });
    await until("nothing is left", () => findVmProcesses(root).length === 0);
  });

  test("a program that is missing is named, with what to install; a bad address is refused", async () => {
    const bin = join(root, "bin");
    mkdirSync(bin);
    for (const program of ["ip", "unshare", "nsenter", "mkfifo"])
      symlinkSync(findProgram(program, process.env)!, join(bin, program));
    await assert.rejects(startNetwork({ directory: root, forwards: [], env: { PATH: bin } }), {
      code: "PROGRAM_MISSING",
      message: /slirp4netns/,
      hint: /apt-get install slirp4netns/,
    });
    await assert.rejects(startNetwork({ directory: root, forwards: [], env: process.env, allow: ["everything"] }), {
      code: "INVALID_NETWORK",
    });
  });
});

describe("a VM's network of an ordinary user", { skip }, () => {
  let root: string;
  before(() => {
    root = mkdtempSync(join(tmpdir(), "mvm-network-"));
    chownSync(root, NOBODY, NOBODY);
  });
  after(() => {
    rmSync(root, { recursive: true, force: true });
  });

  /** Starts a network as nobody, with another /dev/net, and asks through it. What it prints comes back. */
  async function asNobody(device: string) {
    const program = `
      const { startNetwork } = await import(${JSON.stringify(join(import.meta.dirname, "../../src/host/network.ts"))});
      const { run } = await import(${JSON.stringify(join(import.meta.dirname, "../../src/core/process.ts"))});
      try {
        const network = await startNetwork({ directory: ${JSON.stringify(root)}, forwards: [], env: process.env });
        const [enter, ...rest] = network.prefix;
        const ask = async (address) => (await run(enter, [...rest, "socat", "-T5", "-", "TCP:" + address + ":${PORT},connect-timeout=2"])).stdout;
        const nested = await run(enter, [...rest, "unshare", "--user", "--map-root-user", "--", "perl", "-e", ${JSON.stringify(OPEN_TAP)}, network.tap]);
        console.log(JSON.stringify({ outside: await ask("${OUTSIDE}"), here: await ask("${HERE}"), tap: nested.stderr }));
        await network.stop();
      } catch (error) {
        console.log(JSON.stringify({ code: error.code, hint: error.hint }));
      }`;
    const script = `mount -t tmpfs none /dev/net && ${device} && exec setpriv --reuid ${NOBODY} --regid ${NOBODY} --clear-groups "$@"`;
    const node = [process.execPath, "--input-type=module", "-e", program];
    const result = await run("unshare", ["--mount", "sh", "-c", script, "sh", ...node], { timeoutMs: 60_000 });
    assert.equal(result.exitCode, 0, result.stderr);
    assert.deepEqual(findVmProcesses(root), []);
    return JSON.parse(result.stdout);
  }
  const tun = "mknod /dev/net/tun c 10 200";

  test("needs no privilege", async () => {
    assert.deepEqual(await asNobody(`${tun} && chmod 666 /dev/net/tun`), {
      outside: "the outside\n",
      here: "",
      tap: "",
    });
  });

  test("a tap that can't be made is an error that says what mends it", async () => {
    const forbidden = await asNobody(`${tun} && chmod 600 /dev/net/tun`);
    assert.deepEqual([forbidden.code, /sudo chmod 0666 \/dev\/net\/tun/.test(forbidden.hint)], ["TAP_FAILED", true]);
    const absent = await asNobody("true");
    assert.deepEqual([absent.code, /sudo modprobe tun/.test(absent.hint)], ["TAP_FAILED", true]);
  });
});

async function interfaces(): Promise<string[]> {
  return (await run("ip", ["-brief", "link"])).stdout.split("\n").map((line) => line.split(/[ @]/)[0]!);
}

/** Processes in a network namespace: `net:[4026532177]`. */
function usersOf(namespace: string): string[] {
  return readdirSync("/proc").filter((name) => {
    try {
      return /^\d+$/.test(name) && readlinkSync(`/proc/${name}/ns/net`) === namespace;
    } catch {
      return false;
    }
  });
}
