import { MvmError } from "../core/errors.ts";

/** What differs between the versions of Firecracker that we drive. The one place that knows. */
export interface FirecrackerFeatures {
  readonly version: string;
  /** `vsock_override` of `PUT /snapshot/load`. */
  readonly vsockOverride: boolean;
  /**
   * Whether the agent answers after a pause without a snapshot. 1.16 waits for ever for the guest to acknowledge a reset of
   * its vsock that was never sent (pull request 6100, in no release yet).
   */
  readonly resumeKeepsVsock: boolean;
}

const OLDEST_MINOR = 12;
const HINT = "install another one: mvmctl setup --firecracker (or name one with MVM_FC_BIN)";

/**
 * What the Firecracker of this version can do. Minor versions newer than those we know are taken as compatible, which is
 * what Firecracker promises for its API (docs/RELEASE_POLICY.md there).
 * @param version as `MAJOR.MINOR.PATCH`
 * @throws MvmError `HYPERVISOR_UNSUPPORTED`
 */
export function firecrackerFeatures(version: string): FirecrackerFeatures {
  const [major, minor, patch] = numbersOf(version);
  if (major !== 1) throw unsupported(version, "this mvmctl drives version 1 only");
  if (minor < OLDEST_MINOR) throw unsupported(version, `this mvmctl drives 1.${OLDEST_MINOR} and newer`);
  if (minor === 16 && patch === 0) {
    throw unsupported(version, "its guests can go silent after a restore, which 1.16.1 mends");
  }
  return { version, vsockOverride: minor >= 16, resumeKeepsVsock: minor !== 16 };
}

/** The version that `firecracker --version` or `GET /version` says; undefined if it says none. */
export function parseFirecrackerVersion(text: string): string | undefined {
  return /^(?:Firecracker )?v?(\d+\.\d+\.\d+)/m.exec(text)?.[1];
}

function numbersOf(version: string): [major: number, minor: number, patch: number] {
  const match = /^(\d+)\.(\d+)\.(\d+)$/.exec(version);
  if (!match) throw unsupported(version, "that is no version number");
  return [Number(match[1]), Number(match[2]), Number(match[3])];
}

function unsupported(version: string, why: string): MvmError {
  return new MvmError("HYPERVISOR_UNSUPPORTED", `Firecracker ${version} can't be used: ${why}`, { hint: HINT });
}
