import { closeSync, openSync, readSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import type { DocumentKind } from "../core/documents.ts";
import { MvmError } from "../core/errors.ts";
import type { Paths } from "../core/paths.ts";
import { makeStagingDirectory } from "../core/staging.ts";
import { type HypervisorIdentity, HypervisorIdentitySchema } from "./driver.ts";
import { findFirecracker, firecrackerVersion } from "./firecracker-binary.ts";
import { FIRECRACKER_LAYOUT } from "./firecracker-machine.ts";
import { firecrackerFeatures } from "./firecracker-version.ts";
import { probeKvm, runBriefly } from "./kvm-probe.ts";
import { hostCpuModel, probeKey, readProbe, writeProbe } from "./probe-cache.ts";
import { isDynamic, KVM_MARK, tinyKernel } from "./tiny-kernel.ts";

export const FIRECRACKER_INSTALL_HINT = "install it: mvmctl setup --firecracker (or set MVM_FC_BIN)";

export interface FirecrackerFacts {
  readonly binary: string;
  readonly identity: HypervisorIdentity;
}

const FirecrackerFactsSchema = v.object({
  version: v.literal(1),
  key: v.string(),
  identity: HypervisorIdentitySchema,
  /** Why KVM can't be used, where it can't. */
  withoutKvm: v.optional(v.string()),
});
const FirecrackerFactsDocument: DocumentKind<v.InferOutput<typeof FirecrackerFactsSchema>> = {
  title: "Firecracker probe",
  version: 1,
  schema: FirecrackerFactsSchema,
};

/**
 * Finds Firecracker and whether it can be used here. The answer is kept for this boot, a refusal because of KVM too.
 * @throws MvmError `HYPERVISOR_MISSING`, `HYPERVISOR_UNUSABLE`, `HYPERVISOR_UNSUPPORTED`
 */
export async function probeFirecracker(
  paths: Pick<Paths, "dataDir" | "cache">,
  env: NodeJS.ProcessEnv,
  signal?: AbortSignal,
): Promise<FirecrackerFacts> {
  if (process.arch !== "x64") throw unusable(`its driver knows x86_64 only, and this machine is ${process.arch}`);
  const program = findFirecracker(paths, env);
  if (program === undefined) {
    const wanted = env["MVM_FC_BIN"];
    throw new MvmError("HYPERVISOR_MISSING", `Firecracker is not installed${wanted ? `: there is no ${wanted}` : ""}`, {
      hint: FIRECRACKER_INSTALL_HINT,
    });
  }
  const binary = realpathSync(program);
  const key = probeKey(binary, FIRECRACKER_LAYOUT);
  const path = join(paths.cache, "firecracker.json");
  let found: { identity: HypervisorIdentity; withoutKvm?: string | undefined } | undefined;
  found = readProbe(FirecrackerFactsDocument, path, key);
  if (found === undefined) {
    found = await ask(binary, paths.cache, signal);
    writeProbe(FirecrackerFactsDocument, path, { key, ...found });
  }
  const { identity, withoutKvm } = found;
  requireVersion(identity.version, env["MVM_FC_VERSION"], binary);
  if (withoutKvm !== undefined) throw unusable(`it needs KVM: ${withoutKvm}`);
  return { binary, identity };
}

async function ask(binary: string, scratch: string, signal?: AbortSignal) {
  const { version } = firecrackerFeatures(await askVersion(binary, signal));
  if (isDynamic(readHead(binary)))
    throw unusable(`${binary} needs shared libraries, which its VMs' namespaces do not have`);
  const kvm = await probeKvm(() => runTinyGuest(binary, scratch, { signal }));
  const identity: HypervisorIdentity = {
    name: "firecracker",
    version,
    accelerator: "kvm",
    architecture: "x86_64",
    cpuModel: hostCpuModel(),
    layout: FIRECRACKER_LAYOUT,
  };
  return { identity, ...(kvm.usable ? {} : { withoutKvm: kvm.reason }) };
}

function requireVersion(found: string, wanted: string | undefined, binary: string): void {
  if (!wanted || wanted.replace(/^v/, "") === found) return;
  throw unusable(`MVM_FC_VERSION asks for ${wanted}, and ${binary} is ${found}`);
}

async function askVersion(binary: string, signal?: AbortSignal): Promise<string> {
  const version = await firecrackerVersion(binary, signal);
  if (version) return version;
  throw new MvmError("HYPERVISOR_UNUSABLE", `${binary} does not say a version of Firecracker`, {
    hint: FIRECRACKER_INSTALL_HINT,
  });
}

/** The program headers of an executable are in its first page. */
function readHead(path: string): Buffer {
  const head = Buffer.alloc(4096);
  const fd = openSync(path, "r");
  try {
    return head.subarray(0, readSync(fd, head));
  } finally {
    closeSync(fd);
  }
}

/** Whether a guest of a few instructions runs, within the probe's time. */
export async function runTinyGuest(
  binary: string,
  scratch: string,
  options: { readonly signal?: AbortSignal | undefined; readonly timeoutMs?: number } = {},
): Promise<boolean> {
  using staging = makeStagingDirectory(scratch, "kvm-probe");
  const kernel = join(staging.path, "kernel");
  const config = join(staging.path, "config.json");
  writeFileSync(kernel, tinyKernel());
  writeFileSync(
    config,
    JSON.stringify({
      "boot-source": { kernel_image_path: kernel, boot_args: "console=ttyS0" },
      "machine-config": { vcpu_count: 1, mem_size_mib: 32 },
      drives: [],
    }),
  );
  // Otherwise its log goes where the guest's console goes, and in between the letters of what the guest says.
  const quiet = ["--log-path", "/dev/null"];
  const result = await runBriefly(binary, ["--no-api", "--config-file", config, ...quiet], options);
  return result?.stdout.includes(KVM_MARK) ?? false;
}

function unusable(why: string): MvmError {
  return new MvmError("HYPERVISOR_UNUSABLE", `Firecracker can't be used here: ${why}`, {
    hint: "choose another one: --hypervisor qemu",
  });
}
