import { join } from "node:path";
import type { PortForward, VmConfig } from "../hypervisor/driver.ts";
import type { Manifest } from "./revision.ts";

export interface VmSizes {
  readonly cpus: number;
  readonly memMiB: number;
  readonly dataDiskMiB: number;
}

/** A VM of a revision: what capture and run have in common, so that a snapshot fits what is restored. */
export function vmConfigOf(
  revision: { readonly directory: string; readonly manifest: Manifest },
  vm: { readonly directory: string; readonly dataDisk: string | undefined; readonly ports: readonly PortForward[] },
  sizes: VmSizes,
): VmConfig {
  const { artifacts, image, spec } = revision.manifest;
  return {
    directory: vm.directory,
    cpus: sizes.cpus,
    memMiB: sizes.memMiB,
    kernel: join(revision.directory, artifacts.kernel.file),
    initrd: artifacts.initrd && join(revision.directory, artifacts.initrd.file),
    rootfs: { path: join(revision.directory, artifacts.rootfs.file), type: image.rootfsType },
    kernelCommandLine: `${image.kernelCommandLine} mvm.role=${spec.role}`.trim(),
    dataDisk: vm.dataDisk,
    ports: vm.ports,
  };
}
