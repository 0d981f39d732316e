import { MvmError } from "../core/errors.ts";

/** The version that `setup` installs if no other is asked for: the newest that was good when this was written. */
export const PINNED_VERSION = "1.16.1";

/** SHA-256 of that release's archives, as published beside them (`….tgz.sha256.txt`). */
const PINNED_SHA256: Readonly<Record<string, string>> = {
  x86_64: "382a02a869e4d6d5cb14c40577f9545e8458021ea8b0b2d3fc10ec14d9c242e6",
  aarch64: "8d0e69f6d6f9a1724551f607f18504052c16c1828ee3d4d7b6e6c73380871e0e",
};

const RELEASES = "https://github.com/firecracker-microvm/firecracker/releases/download";

export interface FirecrackerRelease {
  readonly version: string;
  /** As `uname -m` says it. */
  readonly architecture: string;
  readonly url: string;
  /** Undefined for a version that this mvmctl does not know: then the file published beside the archive is believed. */
  readonly sha256: string | undefined;
}

/**
 * The release to install: the pinned one, or MVM_FC_VERSION's. MVM_FC_RELEASES names a mirror.
 * @throws MvmError `INVALID_SETTINGS`
 */
export function firecrackerRelease(env: NodeJS.ProcessEnv): FirecrackerRelease {
  const version = (env["MVM_FC_VERSION"] || PINNED_VERSION).replace(/^v/, "");
  if (!/^\d+\.\d+\.\d+$/.test(version)) {
    throw new MvmError("INVALID_SETTINGS", `MVM_FC_VERSION '${version.slice(0, 40)}' is not a version`, {
      hint: `write it like ${PINNED_VERSION}`,
    });
  }
  const architecture = process.arch === "arm64" ? "aarch64" : "x86_64";
  const base = (env["MVM_FC_RELEASES"] || RELEASES).replace(/\/+$/, "");
  return {
    version,
    architecture,
    url: `${base}/v${version}/firecracker-v${version}-${architecture}.tgz`,
    sha256: version === PINNED_VERSION ? PINNED_SHA256[architecture] : undefined,
  };
}
