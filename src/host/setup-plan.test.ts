import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { firecrackerRelease } from "./firecracker-release.ts";
import { planSetup, type SetupFacts, type SetupStep } from "./setup-plan.ts";
import { TOOLS } from "./tools.ts";

/** A Debian machine that has everything, and its root. */
const WHOLE: SetupFacts = {
  missing: [],
  certificates: true,
  hasApt: true,
  hasPackageLists: true,
  becomeRoot: [],
  user: "ann",
  hasSystemd: true,
  nixUsable: true,
  hasNixDirectory: true,
  kvm: "usable",
  firecracker: "installed",
  binDirectory: "/home/ann/.mvm/bin",
};
const missing = (...programs: string[]) => TOOLS.filter(({ program }) => programs.includes(program));
const commands = (steps: readonly SetupStep[]) =>
  steps.map((step) => (step.kind === "command" ? step.command.join(" ") : `${step.kind}: ${step.says}`));

describe("what setup decides to do", () => {
  test("nothing, where everything is there", () => {
    assert.deepEqual(planSetup(WHOLE), []);
  });

  test("what is missing is installed from Debian's packages, each once, after reading their lists", () => {
    const steps = planSetup({ ...WHOLE, missing: missing("nix", "qemu-system-x86_64", "git"), certificates: false });
    assert.deepEqual(commands(steps), [
      "apt-get update -qq",
      "apt-get install -qq -y --no-install-recommends nix-bin qemu-system-x86 git ca-certificates",
    ]);
  });

  test("lists of packages are read where there are none: images are made from them", () => {
    assert.deepEqual(commands(planSetup({ ...WHOLE, hasPackageLists: false })), ["apt-get update -qq"]);
  });

  test("who is not root uses sudo, and without it is told what root has to do", () => {
    const facts = { ...WHOLE, missing: missing("nix") };
    assert.match(commands(planSetup({ ...facts, becomeRoot: ["sudo"] }))[1] ?? "", /^sudo apt-get install .* nix-bin$/);
    const [only, none] = commands(planSetup({ ...facts, becomeRoot: undefined }));
    assert.match(only ?? "", /^by-hand: as root: apt-get update && apt-get install .* nix-bin$/);
    assert.equal(none, undefined);
  });

  test("who is not root gets a /nix of their own on a new machine", () => {
    const user = { ...WHOLE, becomeRoot: ["sudo"], nixUsable: false, hasNixDirectory: false };
    assert.deepEqual(commands(planSetup(user)), ["sudo install -d -m 755 -o ann /nix"]);
    assert.match(commands(planSetup({ ...user, becomeRoot: undefined }))[0] ?? "", /^by-hand: .*as root/);
  });

  test("who is not root and has not /nix gets Nix's daemon, and is let into its group", () => {
    const user = { ...WHOLE, becomeRoot: ["sudo"], nixUsable: false };
    assert.deepEqual(commands(planSetup(user)), [
      "sudo apt-get install -qq -y --no-install-recommends nix-setup-systemd",
      "sudo usermod -aG nix-users ann",
    ]);
    assert.match(commands(planSetup({ ...user, hasSystemd: false }))[0] ?? "", /^by-hand: .*daemon/);
  });

  test("who may not open /dev/kvm is let into its group", () => {
    assert.deepEqual(commands(planSetup({ ...WHOLE, kvm: "forbidden", becomeRoot: ["sudo"] })), [
      "sudo usermod -aG kvm ann",
    ]);
  });

  test("on another system it says what to install, and changes nothing", () => {
    const other = { ...WHOLE, hasApt: false, missing: missing("nix", "git", "dpkg-deb", "apt-get") };
    assert.deepEqual(commands(planSetup(other)), ["by-hand: install, with this system's package manager: nix, git"]);
  });

  test("Firecracker: the pinned release says its checksum, another one that it has none here, a file its name", () => {
    const pinned = planSetup({ ...WHOLE, firecracker: firecrackerRelease({}) });
    assert.match(
      pinned[0]?.says ?? "",
      /Firecracker 1\.16\.1 into .*v1\.16\.1-(x86_64|aarch64)\.tgz, .*SHA-256 [0-9a-f]{12}…/,
    );
    const other = planSetup({ ...WHOLE, firecracker: firecrackerRelease({ MVM_FC_VERSION: "v1.15.1" }) });
    assert.match(other[0]?.says ?? "", /Firecracker 1\.15\.1 .*checked only against/);
    assert.match(planSetup({ ...WHOLE, firecracker: { file: "/tmp/fc.tgz" } })[0]?.says ?? "", /from \/tmp\/fc\.tgz/);
    assert.throws(() => firecrackerRelease({ MVM_FC_VERSION: "../1" }), { code: "INVALID_SETTINGS" });
  });
});
