import { existsSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Context } from "../core/context.ts";
import { copySparse } from "../core/copy.ts";
import { fileError, MvmError } from "../core/errors.ts";
import { changeMode } from "../core/files.ts";
import { MiB } from "../core/sizes.ts";
import type { InstanceRecord } from "./record.ts";
import { DATA_DISK } from "./records.ts";
import type { StartPlan } from "./start-plan.ts";

/** It is written, and nobody else's business. A snapshot's disk, which it may be a copy of, is neither. */
const OWN_MODE = 0o600;

/**
 * The size in MiB of the data disk that an instance's directory has of an earlier life, or undefined.
 * @throws MvmError `FILE_FAILED`
 */
export function keptDataDiskMiB(directory: string): number | undefined {
  const path = join(directory, DATA_DISK);
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    return stat && stat.size / MiB;
  } catch (error) {
    throw fileError(error, path, "look at");
  }
}

/**
 * A data disk goes on with the template that wrote it, in the size that it has: anything else would lose what is on it,
 * or not be what was asked for.
 * @throws MvmError `DATA_DISK_MISMATCH`
 */
export function requireSameDataDisk(directory: string, earlier: InstanceRecord, wanted: InstanceRecord): void {
  const keptMiB = keptDataDiskMiB(directory);
  if (keptMiB === undefined) return;
  const { name } = wanted;
  const remove = `remove it with its data: mvmctl rm ${name}`;
  if (earlier.template !== wanted.template) {
    const what = `instance '${name}' has a data disk, which is of the template ${earlier.template} and not of ${wanted.template}`;
    throw new MvmError("DATA_DISK_MISMATCH", what, { hint: `choose another --name, or ${remove}` });
  }
  if (keptMiB !== wanted.dataDiskMiB) {
    const what = `instance '${name}' has a data disk of ${keptMiB} MiB, and --data-disk ${wanted.dataDiskMiB} was asked for`;
    throw new MvmError("DATA_DISK_MISMATCH", what, {
      hint: `leave --data-disk out to go on with that disk, or ${remove}`,
    });
  }
}

/**
 * The instance's own disk: kept from its earlier life, copied from the snapshot, or new. Returns its path, or undefined
 * where there is to be none.
 * @throws MvmError `DISK_FULL`, `COPY_FAILED`, `PROGRAM_MISSING`, `DATA_DISK_FAILED`
 */
export async function provideDataDisk(
  ctx: Context,
  plan: StartPlan,
  directory: string,
  dataDiskMiB: number,
): Promise<string | undefined> {
  const path = join(directory, DATA_DISK);
  if (!existsSync(path)) {
    if (dataDiskMiB === 0) return undefined;
    // Under its own name only when it is whole: a start that is killed on the way must not leave half a disk to the next.
    const unfinished = `${path}.unfinished`;
    rmSync(unfinished, { force: true });
    await makeDataDisk(ctx, plan, unfinished, dataDiskMiB);
    renameSync(unfinished, path);
  }
  changeMode(path, OWN_MODE);
  return path;
}

async function makeDataDisk(ctx: Context, plan: StartPlan, path: string, dataDiskMiB: number): Promise<void> {
  const captured = plan.start === "restored" ? plan.snapshot.snapshot.files.dataDisk : undefined;
  if (captured && plan.start === "restored")
    return await copySparse(join(plan.snapshot.directory, captured.file), path, ctx.signal);
  const { createDataDisk } = await import("../host/data-disk.ts");
  await createDataDisk(path, dataDiskMiB, ctx.signal);
}
