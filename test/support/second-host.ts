import type { ChildProcess } from "node:child_process";
import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findProgram, run, spawnChecked } from "../../src/core/process.ts";
import { until } from "./wait.ts";

/** Of the block for tests between networks (RFC 2544): nobody's real network. */
const OUR_ADDRESS = "198.18.77.1";
const THEIR_ADDRESS = "198.18.77.2";

/**
 * A second host with a Nix of its own: a network namespace at the other end of a veth pair, in which an sshd runs, in a
 * mount namespace with an empty /nix. Programs and kernel are this machine's.
 */
export interface SecondHost extends AsyncDisposable {
  /** `ssh-ng://root@address`. */
  readonly url: string;
  /** A private key that opens it. */
  readonly key: string;
  /** The host's public key in base64, as Nix takes it. */
  readonly hostKey: string;
  /** Names in its Nix store. */
  storePaths(): string[];
  /** What its sshd said. */
  readonly log: string;
}

/** Makes one, or says why that can't be done here. */
export async function useSecondHost(): Promise<SecondHost | { readonly missing: string }> {
  if (process.getuid?.() !== 0) return { missing: "only root makes network namespaces with a way out" };
  const directory = mkdtempSync(join(tmpdir(), "mvm-second-"));
  const giveUp = (missing: string) => {
    rmSync(directory, { recursive: true, force: true });
    return { missing };
  };
  for (const program of ["ip", "unshare", "ssh", "ssh-keygen", "nix-daemon"])
    if (!findProgram(program, { PATH: `${process.env["PATH"]}:/usr/sbin:/sbin` }))
      return giveUp(`there is no ${program}`);
  const sshd = await findSshd(directory);
  if (!sshd) return giveUp("there is no sshd, and Debian's package of it can't be had");
  const { key, hostKey } = await makeKeys(directory);
  const log = join(directory, "sshd.log");
  const link = `mvm${process.pid}`;
  const host = await spawnChecked(
    "unshare",
    ["--mount", "--net", "--fork", "--kill-child", "sh", "-c", bootScript(directory, sshd, link, log)],
    {
      stdio: "ignore",
    },
  );
  const end = async () => {
    await ended(host);
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    await until("the second host's network comes up", () => host.exitCode !== null || isUp(link));
    if (host.exitCode !== null) throw new Error("it did not start");
    await until("its sshd answers", () => answers(THEIR_ADDRESS, 22));
  } catch (error) {
    const said = `${error}: ${readFileSync(log, "utf8").trim()}`;
    await end();
    return { missing: `namespaces can't be made here: ${said}` };
  }
  return {
    url: `ssh-ng://root@${THEIR_ADDRESS}`,
    key,
    hostKey,
    log,
    storePaths: () => readdirSync(join(directory, "nix", "store")),
    [Symbol.asyncDispose]: end,
  };
}

/** Installed, or unpacked from Debian's package: an sshd that is installed would also be started, for everybody. */
async function findSshd(directory: string): Promise<string | undefined> {
  const installed = findProgram("sshd", { PATH: "/usr/sbin:/sbin" });
  if (installed) return installed;
  try {
    const packages = join(directory, "packages");
    mkdirSync(packages, { mode: 0o777 });
    await run("apt-get", ["download", "-qq", "openssh-server"], { cwd: packages, timeoutMs: 60_000 });
    const [deb = "none"] = readdirSync(packages);
    await run("dpkg-deb", ["--extract", join(packages, deb), directory]);
    return findProgram(join(directory, "usr", "sbin", "sshd"), {});
  } catch {
    return undefined;
  }
}

async function makeKeys(directory: string): Promise<{ key: string; hostKey: string }> {
  const make = (name: string) =>
    run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", join(directory, name)]);
  await make("key");
  await make("host_key");
  copyFileSync(join(directory, "key.pub"), join(directory, "authorized_keys"));
  return {
    key: join(directory, "key"),
    hostKey: readFileSync(join(directory, "host_key.pub")).toString("base64"),
  };
}

/** Turns fresh namespaces into the host: a /nix, users and a /run of its own, a network, and sshd. */
function bootScript(directory: string, sshd: string, link: string, log: string): string {
  mkdirSync(join(directory, "nix"));
  copyFileSync("/etc/passwd", join(directory, "passwd"));
  appendFileSync(join(directory, "passwd"), "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n");
  writeFileSync(join(directory, "shadow"), "root:*:19000::::::\nsshd:*:19000::::::\n");
  const config = {
    HostKey: join(directory, "host_key"),
    AuthorizedKeysFile: join(directory, "authorized_keys"),
    PermitRootLogin: "prohibit-password",
    StrictModes: "no",
    UsePAM: "no",
    UseDNS: "no",
    PidFile: "none",
    SetEnv: `NIX_CONF_DIR=${directory}`,
  };
  // Root there has no group of build users, either, and no binary cache can be reached.
  writeFileSync(join(directory, "nix.conf"), "build-users-group =\nsubstituters =\n");
  writeFileSync(
    join(directory, "sshd_config"),
    Object.entries(config)
      .map(([key, value]) => `${key} ${value}\n`)
      .join(""),
  );
  return `set -e
exec >'${log}' 2>&1
PATH=$PATH:/usr/sbin:/sbin
mount --bind '${directory}/nix' /nix
mount --bind '${directory}/passwd' /etc/passwd
mount --bind '${directory}/shadow' /etc/shadow
mount -t tmpfs none /run
mkdir -p /run/sshd
ip link set lo up
ip link add eth0 type veth peer name ${link} netns ${process.pid}
ip address add ${THEIR_ADDRESS}/30 dev eth0
ip link set eth0 up
nsenter --net=/proc/${process.pid}/ns/net ip address add ${OUR_ADDRESS}/30 dev ${link}
nsenter --net=/proc/${process.pid}/ns/net ip link set ${link} up
exec '${sshd}' -D -e -f '${directory}/sshd_config'
`;
}

function isUp(link: string): boolean {
  return readFileSync("/proc/net/dev", "utf8").includes(`${link}:`);
}

function answers(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 1000 });
    const done = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", () => done(true));
    socket.once("error", () => done(false));
    socket.once("timeout", () => done(false));
  });
}

/** With `unshare` its child goes, and with that the namespaces and the link. */
function ended(host: ChildProcess): Promise<void> {
  if (host.exitCode !== null || host.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    host.once("exit", () => resolve());
    host.kill("SIGKILL");
  });
}
