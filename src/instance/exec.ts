import type { Context } from "../core/context.ts";
import type { InstanceName } from "../core/names.ts";
import { type ExecRequest, type ExecStreams, execInGuest } from "../guest/exec.ts";
import { connectAgent, requireLive } from "./connect.ts";

/**
 * Runs a command in an instance and returns its exit code, 128 + the signal's number if it died of one.
 * @throws MvmError `INSTANCE_NOT_FOUND`, `INSTANCE_NOT_RUNNING`, `COMMAND_NOT_FOUND`, `COMMAND_FAILED`
 */
export async function execInInstance(
  ctx: Context,
  name: InstanceName,
  request: ExecRequest,
  streams: ExecStreams,
): Promise<number> {
  await using client = await connectAgent(ctx, requireLive(ctx, name));
  return await execInGuest(client, request, { signal: ctx.signal, ...streams });
}
