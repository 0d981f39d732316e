import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { type DocumentKind, parseDocument } from "../core/documents.ts";
import { MvmError } from "../core/errors.ts";

/** The image contract (docs/guest-images.md): what a flake's package must hold to be a template. */
const KERNELS = ["vmlinux", "bzImage"] as const;
const ROOT_FILE_SYSTEMS = ["erofs", "squashfs", "ext4"] as const;

const GuestImageSchema = v.object({
  version: v.literal(1),
  kernelCommandLine: v.optional(v.pipe(v.string(), v.maxLength(1024), v.regex(/^[\x20-\x7e]*$/)), ""),
  agent: v.optional(v.boolean(), false),
});
const GuestImageDocument: DocumentKind<v.InferOutput<typeof GuestImageSchema>> = {
  title: "image description",
  version: 1,
  schema: GuestImageSchema as v.GenericSchema<unknown, v.InferOutput<typeof GuestImageSchema>>,
};

export interface Image {
  readonly kernel: string;
  readonly initrd: string | undefined;
  readonly rootfs: string;
  readonly rootfsType: (typeof ROOT_FILE_SYSTEMS)[number];
  readonly kernelCommandLine: string;
  readonly agent: boolean;
}

/**
 * Finds kernel and root file system in what Nix built.
 * @throws MvmError `IMAGE_INCOMPLETE`, naming what is missing and what is there
 */
export function findImage(directory: string): Image {
  const kernel = KERNELS.map((name) => join(directory, name)).find(existsSync);
  const rootfsType = ROOT_FILE_SYSTEMS.find((type) => existsSync(join(directory, `rootfs.${type}`)));
  const missing = [
    kernel ? [] : ["a kernel (vmlinux or bzImage)"],
    rootfsType ? [] : ["a root file system (rootfs.erofs, rootfs.squashfs or rootfs.ext4)"],
  ].flat();
  if (!kernel || !rootfsType) {
    throw new MvmError("IMAGE_INCOMPLETE", `what the flake built is no VM image: it lacks ${missing.join(" and ")}`, {
      detail: `${directory} has: ${listing(directory)}`,
      hint: "build the package with mkGuest, or put these files into its output",
    });
  }
  const description = join(directory, "guest.json");
  const guest = existsSync(description)
    ? parseDocument(GuestImageDocument, readFileSync(description, "utf8"), description)
    : { kernelCommandLine: "", agent: false };
  const initrd = join(directory, "initrd");
  return {
    kernel,
    initrd: existsSync(initrd) ? initrd : undefined,
    rootfs: join(directory, `rootfs.${rootfsType}`),
    rootfsType,
    kernelCommandLine: guest.kernelCommandLine,
    agent: guest.agent,
  };
}

function listing(directory: string): string {
  try {
    return readdirSync(directory).sort().slice(0, 20).join(", ") || "nothing";
  } catch {
    return "it is a single file";
  }
}
