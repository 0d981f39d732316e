import { existsSync, realpathSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { MvmError } from "../core/errors.ts";

/** A directory of the host that is copied into the guest at the start. */
export interface Volume {
  readonly hostPath: string;
  readonly guestPath: string;
}

/** Directories of the guest that are the system's own: copying over them would break it. */
const FORBIDDEN = /^\/(proc|sys|dev|run)(\/|$)|^\/$/;

/**
 * Parses `DIR:/guest/path`.
 * @throws MvmError `INVALID_VOLUME`, `VOLUME_NOT_FOUND`
 */
export function parseVolume(text: string, cwd: string): Volume {
  const colon = text.lastIndexOf(":/");
  const guestPath =
    colon > 0
      ? text
          .slice(colon + 1)
          .replace(/\/{2,}/g, "/")
          .replace(/(?<=.)\/$/, "")
      : "";
  if (guestPath === "" || FORBIDDEN.test(guestPath) || /(^|\/)\.\.?(\/|$)|[\0-\x1f]/.test(guestPath)) {
    throw new MvmError("INVALID_VOLUME", `'${text}' is not a volume`, {
      hint: "write -v DIR:/mnt/config, -v DIR:/mnt/secrets or -v DIR:/another/path",
    });
  }
  const hostPath = resolve(cwd, text.slice(0, colon));
  requireVolume(hostPath, text);
  // What is copied is what a link leads to, not the link.
  return { hostPath: realpathSync(hostPath), guestPath };
}

/** @throws MvmError `VOLUME_NOT_FOUND` */
export function requireVolume(hostPath: string, volume: string): void {
  if (existsSync(hostPath) && statSync(hostPath).isDirectory()) return;
  throw new MvmError("VOLUME_NOT_FOUND", `-v ${volume}: ${hostPath} is not a directory`, {
    hint: existsSync(hostPath) ? "put the file into a directory, and give that" : `make it: mkdir -p ${hostPath}`,
  });
}
