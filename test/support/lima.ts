import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LIMA_LAYOUT, PACKAGE_MOUNT } from "../../src/host/lima/template.ts";
import { LAUNCHER, REPOSITORY } from "./mvmctl.ts";

/** A Mac that is this machine, with a stand-in for limactl (limactl-stand-in.sh); its "VM" is this machine as well. */
export interface LimaStandIn extends Disposable {
  /** The home directory of both sides. */
  readonly home: string;
  /** The login directory of the "VM", which has none of the quotes and spaces of `home`. */
  readonly guestHome: string;
  readonly env: NodeJS.ProcessEnv;
  /** What limactl was called with so far: a line a call, each argument quoted. */
  calls(): string[];
  /** The VM as `limactl list` has it; undefined for none. */
  setVm(status: string | undefined, vm?: { layout?: number; packageDirectory?: string }): void;
  /** Replaces mvmctl in the VM by a bash script. */
  guestMvmctl(script: string): void;
  makeStartFail(): void;
}

export function useLima(): LimaStandIn {
  const root = mkdtempSync(join(tmpdir(), "mvm-lima-"));
  const state = join(root, "state");
  const home = join(root, "Users", "it's me");
  const hostBin = join(root, "bin");
  for (const directory of [home, hostBin, join(state, "bin"), join(state, "home"), join(state, "vm")])
    mkdirSync(directory, { recursive: true });
  symlinkSync(join(import.meta.dirname, "limactl-stand-in.sh"), join(hostBin, "limactl"));
  const guestMvmctl = (script: string) => {
    writeFileSync(join(state, "bin", "mvmctl"), `#!/bin/bash\n${script}\n`);
    chmodSync(join(state, "bin", "mvmctl"), 0o755);
  };
  guestMvmctl(`exec ${process.execPath} ${LAUNCHER} "$@"`);
  const standIn: LimaStandIn = {
    home,
    guestHome: join(state, "home"),
    env: {
      ...process.env,
      HOME: home,
      PATH: `${hostBin}:${process.env["PATH"]}`,
      LIMA_STAND_IN: state,
      MVM_LIMA: "force",
    },
    calls: () => {
      const calls = join(state, "calls");
      return existsSync(calls) ? readFileSync(calls, "utf8").trimEnd().split("\n") : [];
    },
    setVm: (status, { layout = LIMA_LAYOUT, packageDirectory = REPOSITORY } = {}) => {
      if (status === undefined) rmSync(join(state, "status"), { force: true });
      else writeFileSync(join(state, "status"), status);
      const mounts = [
        { location: home, mountPoint: home },
        { location: packageDirectory, mountPoint: PACKAGE_MOUNT },
      ];
      const vm = { name: "mvmctl", status: "STATUS", dir: join(state, "vm"), cpus: 2, memory: 2 ** 31 };
      const config = { mounts, param: { MvmLayout: String(layout) } };
      const others = { name: "default", status: "Stopped", dir: "/nowhere" };
      writeFileSync(join(state, "list.json"), `${JSON.stringify(others)}\n${JSON.stringify({ ...vm, config })}\n`);
    },
    guestMvmctl,
    makeStartFail: () => writeFileSync(join(state, "start-fails"), ""),
    [Symbol.dispose]: () => rmSync(root, { recursive: true, force: true }),
  };
  standIn.setVm("Running");
  return standIn;
}
