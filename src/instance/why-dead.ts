import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { bootId } from "../core/process-identity.ts";
import { lastLines } from "../core/text.ts";
import { CONSOLE_LOG, HYPERVISOR_LOG } from "../hypervisor/driver.ts";
import { panicOn } from "../hypervisor/guest-panic.ts";
import type { InstanceRecord } from "./record.ts";

/** A panic's trace is some 4 kB; what was written before is not about the end. */
const END_BYTES = 16 * 1024;
const SHOWN_CHARACTERS = 160;
/** QEMU's warnings, and what Firecracker logs of every request: all its lines but those of a signal, an error or its exit. */
const ROUTINE = /\bwarning:|^\d{4}-\d\d-\d\dT\S+ \[(?!.*\b(signal|error|panicked|exited|exiting)\b)/i;

/** Why an instance whose process is gone ended, as far as its record and its logs say, in a clause. */
export function whyDead({ state, starter, process }: InstanceRecord, directory: string): string {
  if ((process ?? starter).bootId !== bootId()) return "this machine was restarted while it ran";
  if (state === "starting") return "the mvmctl that started it was killed before it was ready";
  return whyEnded({ console: endOf(join(directory, CONSOLE_LOG)), hypervisor: endOf(join(directory, HYPERVISOR_LOG)) });
}

/** The same from the ends of its logs. Exported for its test. */
export function whyEnded({ console, hypervisor }: { console: string; hypervisor: string }): string {
  const panic = panicOn(console);
  if (panic)
    return panic.outOfMemory ? "the guest ran out of memory" : `the guest's kernel panicked: ${shown(panic.reason)}`;
  if (saysShutDown(console)) return "the guest shut itself down";
  const said = hypervisor
    .split(/\r?\n/)
    .filter((line) => !ROUTINE.test(line))
    .join("\n");
  const last = lastLines(said, 1);
  if (last !== "") return `its hypervisor ended, and said last: ${shown(last)}`;
  return "its hypervisor was killed, or crashed, and left no message";
}

/**
 * Whether a guest's console ends with the kernel's last word before it powers off or reboots in order
 * (Linux, kernel/reboot.c); a panic and a killed hypervisor come without it.
 */
export function saysShutDown(console: string): boolean {
  return /reboot: (Power down|Restarting system|System halted)/.test(lastLines(console, 5));
}

function shown(line: string): string {
  const clean = lastLines(line, 1);
  return clean.length > SHOWN_CHARACTERS ? `${clean.slice(0, SHOWN_CHARACTERS)}…` : clean;
}

/** The end of a log, which may be large; nothing where it can't be read. */
function endOf(path: string): string {
  try {
    const fd = openSync(path, "r");
    try {
      const { size } = fstatSync(fd);
      const buffer = Buffer.alloc(Math.min(size, END_BYTES));
      const bytes = readSync(fd, buffer, 0, buffer.length, size - buffer.length);
      return buffer.toString("utf8", 0, bytes);
    } finally {
      closeSync(fd);
    }
  } catch {
    return "";
  }
}
