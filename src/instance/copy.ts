import { existsSync, statSync } from "node:fs";
import { basename, join, posix } from "node:path";
import type { Context } from "../core/context.ts";
import { MvmError } from "../core/errors.ts";
import type { InstanceName } from "../core/names.ts";
import { getFiles, putFiles } from "../guest/files.ts";
import { connectAgent, requireLive } from "./connect.ts";

/**
 * Copies a file or a directory into a guest. As with cp(1), a target that ends in `/` is a directory to copy into; any
 * other is the copy's own name. A file never takes a directory's place, nor a directory a file's.
 * @throws MvmError `FILE_NOT_FOUND`, `INSTANCE_NOT_RUNNING`, `FILE_FAILED`, `AGENT_…`
 */
export async function copyInto(ctx: Context, name: InstanceName, hostPath: string, guestPath: string): Promise<void> {
  if (!existsSync(hostPath)) throw new MvmError("FILE_NOT_FOUND", `${hostPath} does not exist`);
  if (!guestPath.startsWith("/")) throw relativePath(guestPath);
  const into = guestPath.endsWith("/");
  const directory = into ? guestPath : posix.dirname(guestPath);
  const entry = into ? basename(hostPath) : posix.basename(guestPath);
  await using client = await connectAgent(ctx, requireLive(ctx, name));
  await putFiles(client, hostPath, directory, entry, { signal: ctx.signal }).catch((error) => {
    throw inTheWay(error, `${name}:${guestPath}`, into);
  });
}

/** The agent's refusal to replace what is of another kind, with what to type instead. */
function inTheWay(error: unknown, target: string, into: boolean): unknown {
  if (!(error instanceof MvmError) || error.code !== "AGENT_CONFLICT") return error;
  return new MvmError("FILE_FAILED", `could not write ${target}: something of another kind is in its place`, {
    cause: error,
    detail: error.message,
    hint: into ? "remove it, or copy to another place" : `to copy into a directory, end it in /: ${target}/`,
  });
}

/**
 * Copies a file or a directory out of a guest: into `hostPath` if that is a directory, else to that name.
 * @throws MvmError `INSTANCE_NOT_RUNNING`, `AGENT_NOT_FOUND`
 */
export async function copyOut(ctx: Context, name: InstanceName, guestPath: string, hostPath: string): Promise<void> {
  if (!guestPath.startsWith("/")) throw relativePath(guestPath);
  const isDirectory = existsSync(hostPath) && statSync(hostPath).isDirectory();
  const target = isDirectory ? join(hostPath, posix.basename(guestPath)) : hostPath;
  await using client = await connectAgent(ctx, requireLive(ctx, name));
  await getFiles(client, guestPath, target, ctx.signal);
}

function relativePath(path: string): MvmError {
  return new MvmError("INVALID_PATH", `'${path}' is not an absolute path of the guest`, { hint: "write NAME:/path" });
}
