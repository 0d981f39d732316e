import { type FirecrackerRelease, PINNED_VERSION } from "./firecracker-release.ts";
import type { Tool } from "./tools.ts";

/** What `setup` knows of the machine before it decides. */
export interface SetupFacts {
  readonly missing: readonly Tool[];
  /** CA certificates, without which Nix reaches no server. */
  readonly certificates: boolean;
  readonly hasApt: boolean;
  /** Whether apt knows packages; images of Debian's packages need that too. */
  readonly hasPackageLists: boolean;
  /** How commands become root: nothing for root, `sudo` for others, undefined where there is none. */
  readonly becomeRoot: readonly string[] | undefined;
  readonly user: string;
  /** systemd runs, so that Nix's daemon can. */
  readonly hasSystemd: boolean;
  /** This user can use Nix: as root, with a daemon, or because /nix is theirs. */
  readonly nixUsable: boolean;
  /** There is a /nix: whoever else it belongs to keeps it. */
  readonly hasNixDirectory: boolean;
  readonly kvm: "usable" | "forbidden" | "unusable";
  readonly firecracker: "installed" | "unwanted" | { readonly file: string } | FirecrackerRelease;
  readonly binDirectory: string;
}

/** One thing that `setup` does, or that only the user can. */
export type SetupStep =
  | { readonly kind: "command"; readonly says: string; readonly command: readonly string[] }
  | { readonly kind: "firecracker"; readonly says: string; readonly source: { file: string } | FirecrackerRelease }
  | { readonly kind: "by-hand"; readonly says: string };

/** Decides what has to be done; nothing, on a machine that has everything. */
export function planSetup(facts: SetupFacts): SetupStep[] {
  return [...planPackages(facts), ...planNixForUser(facts), ...planKvm(facts), ...planFirecracker(facts)];
}

function planPackages(facts: SetupFacts): SetupStep[] {
  const { missing, certificates, hasApt, hasPackageLists, becomeRoot } = facts;
  const tools = missing.filter(({ program }) => hasApt || program !== "apt-get");
  const packages = [...new Set([...tools.map(({ debian }) => debian), ...(certificates ? [] : ["ca-certificates"])])];
  if (!hasApt) {
    // dpkg and apt are for images of Debian's packages, which other systems build without if they must.
    const wanted = tools.filter(({ program }) => program !== "dpkg-deb").map(({ program }) => program);
    return wanted.length > 0 ? [byHand(`install, with this system's package manager: ${wanted.join(", ")}`)] : [];
  }
  if (packages.length === 0 && hasPackageLists) return [];
  const install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", ...packages];
  if (!becomeRoot) return [byHand(`as root: apt-get update && ${install.join(" ")}`)];
  return [
    command("read Debian's lists of packages", [...becomeRoot, "apt-get", "update", "-qq"]),
    ...(packages.length > 0
      ? [command(`install from Debian's packages: ${packages.join(", ")}`, [...becomeRoot, ...install])]
      : []),
  ];
}

/**
 * Who is not root builds in a /nix of their own, as Nix's single-user installation has it, and at once. Where /nix is another's,
 * its daemon builds; Debian lets members of nix-users use that.
 */
function planNixForUser(facts: SetupFacts): SetupStep[] {
  const { nixUsable, hasNixDirectory, hasApt, hasSystemd, becomeRoot, user } = facts;
  if (nixUsable) return [];
  if (!hasNixDirectory && becomeRoot) {
    const make = ["install", "-d", "-m", "755", "-o", user, "/nix"];
    return [command(`make /nix, which Nix builds in, for ${user}`, [...becomeRoot, ...make])];
  }
  if (!hasApt || !hasSystemd || !becomeRoot) {
    return [byHand("let this user build with Nix: install its daemon (nixos.org/download), or run mvmctl as root")];
  }
  return [
    command("install Nix's daemon, as you are not root", [
      ...becomeRoot,
      ..."apt-get install -qq -y --no-install-recommends nix-setup-systemd".split(" "),
    ]),
    command(`let ${user} use it, from the next login on`, [...becomeRoot, "usermod", "-aG", "nix-users", user]),
  ];
}

function planKvm({ kvm, becomeRoot, user }: SetupFacts): SetupStep[] {
  if (kvm !== "forbidden") return [];
  const join = ["usermod", "-aG", "kvm", user];
  if (!becomeRoot) return [byHand(`as root: ${join.join(" ")}`)];
  return [command(`let ${user} use /dev/kvm, from the next login on`, [...becomeRoot, ...join])];
}

function planFirecracker({ firecracker, binDirectory }: SetupFacts): SetupStep[] {
  if (firecracker === "installed" || firecracker === "unwanted") return [];
  if ("file" in firecracker) {
    return [
      {
        kind: "firecracker",
        says: `install Firecracker from ${firecracker.file} into ${binDirectory}`,
        source: firecracker,
      },
    ];
  }
  const { version, url, sha256 } = firecracker;
  const checked = sha256
    ? `checked against the SHA-256 ${sha256.slice(0, 12)}… that this mvmctl knows`
    : `checked only against the SHA-256 published beside it, as this mvmctl knows no other than ${PINNED_VERSION}'s`;
  const says = `install Firecracker ${version} into ${binDirectory}, from ${url}, ${checked}`;
  return [{ kind: "firecracker", says, source: firecracker }];
}

function command(says: string, words: readonly string[]): SetupStep {
  return { kind: "command", says, command: words };
}

function byHand(says: string): SetupStep {
  return { kind: "by-hand", says };
}
