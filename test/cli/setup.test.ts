import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { pack } from "tar-stream";
import { findProgram } from "../../src/core/process.ts";
import { kvmAccess } from "../../src/hypervisor/kvm-probe.ts";
import { type Mvmctl, useMvmctl } from "../support/mvmctl.ts";

const ARCHITECTURE = process.arch === "arm64" ? "aarch64" : "x86_64";
/** Stands in for Firecracker: all that setup asks of it is its version. */
const program = (version: string) => `#!/bin/sh\necho "Firecracker v${version}"\n`;

async function archive(version: string, what = program(version)): Promise<Buffer> {
  const tar = pack();
  const directory = `release-v${version}-${ARCHITECTURE}`;
  tar.entry({ name: `${directory}/jailer-v${version}-${ARCHITECTURE}`, mode: 0o755 }, "#!/bin/sh\n");
  tar.entry({ name: `${directory}/firecracker-v${version}-${ARCHITECTURE}.debug` }, "symbols");
  tar.entry({ name: `${directory}/firecracker-v${version}-${ARCHITECTURE}`, mode: 0o755 }, what);
  tar.finalize();
  return gzipSync(await buffer(tar));
}

/** What setup would change of this machine, if a test told it to. */
const skip = kvmAccess() === "forbidden" ? "this user may not open /dev/kvm, and setup would see to that" : false;

describe("mvmctl setup", { skip }, () => {
  let mvm: Mvmctl;
  before(() => {
    mvm = useMvmctl();
  });
  after(() => mvm[Symbol.dispose]());
  const installed = (name = "firecracker") => join(mvm.dataDir, "bin", name);

  test("on a machine that is set up it has nothing to do", async () => {
    assert.deepEqual(await mvm.json(["setup", "--yes", "--no-firecracker"]), { steps: [], done: true });
    assert.equal(await mvm.ok(["setup", "--dry-run", "--no-firecracker"]), "Nothing is missing.\n");
  });

  test("says what it would do, does it with --yes, and nothing without", async (t) => {
    if (process.getuid?.() !== 0) return t.skip("sudo would be asked for");
    const bin = join(mvm.dataDir, "only");
    const log = join(mvm.dataDir, "apt.log");
    mkdirSync(bin);
    for (const tool of ["node", "sh", "cp", "mkfs.ext4", "setpriv", "git", "dpkg-deb", "qemu-system-x86_64"])
      symlinkSync(findProgram(tool, { PATH: `${process.env["PATH"]}:/usr/sbin` }) ?? tool, join(bin, tool));
    // Stands in for apt-get: writes down how it was called, and "installs" Nix.
    const apt = `#!/bin/sh\necho "$DEBIAN_FRONTEND $*" >>'${log}'\ncase "$*" in *nix-bin*) printf '#!/bin/sh\\n' >'${bin}/nix'; /bin/chmod +x '${bin}/nix';; esac\n`;
    writeFileSync(join(bin, "apt-get"), apt, { mode: 0o755 });
    const env = { PATH: bin };
    const setup = ["setup", "--no-firecracker"];
    const said = await mvm.ok([...setup, "--dry-run"], { env });
    assert.match(
      said,
      /would:\n.*apt-get update.*install from Debian's packages: nix-bin\n {4}apt-get install .*nix-bin\n/s,
    );
    const refused = await mvm.run(setup, { env });
    assert.equal(refused.exitCode, 2);
    assert.match(refused.stderr, /will:\n.*nix-bin.*--yes/s);
    assert.equal(existsSync(log), false);
    await mvm.ok([...setup, "--yes"], { env });
    assert.match(readFileSync(log, "utf8"), /^noninteractive update -qq\nnoninteractive install .*nix-bin\n$/);
    assert.deepEqual(await mvm.json([...setup, "--yes"], { env }), { steps: [], done: true });

    rmSync(join(bin, "nix"));
    writeFileSync(join(bin, "apt-get"), "#!/bin/sh\necho 'E: no space' >&2\nexit 100\n", { mode: 0o755 });
    assert.match(await mvm.fails([...setup, "--yes"], "SETUP_FAILED", { env }), /apt-get ended with 100/);

    rmSync(join(bin, "apt-get"));
    const other = await mvm.run([...setup, "--yes"], { env });
    assert.equal(other.exitCode, 1);
    assert.match(other.stdout, /left for you to do:\n {2}install, with this system's package manager: nix\n/);
  });

  test("Firecracker comes from a release, if its checksum is right, and once", async (t) => {
    const good = await archive("1.99.0");
    const sum = createHash("sha256").update(good).digest("hex");
    const name = (version: string) => `/v${version}/firecracker-v${version}-${ARCHITECTURE}.tgz`;
    const files = new Map<string | undefined, string | Buffer>([
      [name("1.99.0"), good],
      [`${name("1.99.0")}.sha256.txt`, `${sum}  firecracker-v1.99.0-${ARCHITECTURE}.tgz\n`],
      [name("1.99.1"), await archive("1.99.1")],
      [`${name("1.99.1")}.sha256.txt`, `${"0".repeat(64)}  x\n`],
      [name("1.16.1"), await archive("1.16.1")],
    ]);
    const server = createServer(({ url }, answer) => {
      const file = files.get(url);
      answer.writeHead(file === undefined ? 404 : 200).end(file);
    }).listen(0, "127.0.0.1");
    t.after(() => server.close());
    await once(server, "listening");
    const mirror = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const env = (version: string) => ({ env: { MVM_FC_RELEASES: mirror, MVM_FC_VERSION: version } });
    const setup = ["setup", "--yes", "--firecracker"];

    assert.match(
      await mvm.fails(setup, "CHECKSUM_MISMATCH", env("1.99.1")),
      /has the SHA-256 [0-9a-f]{64}, and not 0{64}/,
    );
    assert.match(await mvm.fails(setup, "CHECKSUM_MISMATCH", env("")), /and not (382a02|8d0e69)/);
    assert.match(await mvm.fails(setup, "DOWNLOAD_FAILED", env("1.99.2")), /answered 404.*--firecracker FILE/s);
    assert.equal(existsSync(installed()), false);
    await mvm.ok(setup, env("1.99.0"));
    assert.equal(readFileSync(installed(), "utf8"), program("1.99.0"));
    assert.deepEqual(readdirSync(join(mvm.dataDir, "bin")).sort(), ["firecracker", "jailer"]);
    assert.deepEqual(await mvm.json(setup, env("1.99.0")), { steps: [], done: true });
    server.close();
    assert.match(await mvm.fails(setup, "DOWNLOAD_FAILED", env("1.99.3")), /could not download http:/);
    assert.equal(readFileSync(installed(), "utf8"), program("1.99.0"), "what was there stays");
    assert.match(await mvm.ok(["doctor"]), /Firecracker +1\.99\.0 /);
  });

  test("Firecracker comes from a file: an archive or the program, and nothing else", async () => {
    const file = (name: string, content: string | Buffer) => {
      const path = join(mvm.dataDir, name);
      writeFileSync(path, content);
      return path;
    };
    await mvm.ok(["setup", "--yes", "--firecracker", file("fc.tgz", await archive("1.77.0"))]);
    assert.equal(readFileSync(installed(), "utf8"), program("1.77.0"));
    await mvm.ok(["setup", "--yes", "--firecracker", file("fc", program("1.78.0"))]);
    assert.equal(readFileSync(installed(), "utf8"), program("1.78.0"));
    const broken = (await archive("1.79.0")).subarray(0, 150);
    for (const [name, content] of [
      ["cut.tgz", broken],
      ["empty.tgz", gzipSync(Buffer.alloc(1024))],
      ["other.tgz", await archive("1.79.0", "#!/bin/sh\necho hello\n")],
      ["text", "hello"],
    ] as const)
      await mvm.fails(["setup", "--yes", "--firecracker", file(name, content)], "NOT_FIRECRACKER");
    await mvm.fails(["setup", "--yes", "--firecracker", join(mvm.dataDir, "nothing")], "FILE_FAILED");
    assert.equal(readFileSync(installed(), "utf8"), program("1.78.0"), "what was there stays");
    assert.deepEqual(readdirSync(join(mvm.dataDir, "bin")).sort(), ["firecracker", "jailer"]);
  });
});
