import type { Command } from "commander";
import { parseLabel } from "../../../core/names.ts";
import { parseCpus, parseDataDiskMiB, parseMemMiB } from "../../../core/sizes.ts";
import type { TemplateSettings } from "../../../template/spec.ts";
import { type Options, textOption } from "../../page.ts";

/** The options that describe a template; `edit` takes them without defaults. */
export function defineSettings(command: Command, defaults?: TemplateSettings): Command {
  const shown = (value: string | number | undefined) => (value === undefined ? "" : ` (default ${value})`);
  return command
    .option("--flake <ref>", `the flake: a directory, github:…, git+https:…${shown(defaults?.flake)}`)
    .option("--profile <name>", `the flake's package to build${shown(defaults?.profile)}`)
    .option(
      "--role <name>",
      `what the VMs are for; selects the flake's package of that name if it has one${shown(defaults?.role)}`,
    )
    .option("--cpus <n>", `virtual CPUs${shown(defaults?.cpus)}`)
    .option("--mem <MiB>", `memory in MiB${shown(defaults?.memMiB)}`)
    .option("--data-disk <MiB>", `a disk of this size at /mnt/data, 0 for none${shown(defaults?.dataDiskMiB)}`);
}

/** Those settings that were given. @throws MvmError `INVALID_SIZE`, `INVALID_NAME` */
export function parseSettings(options: Options): Partial<TemplateSettings> {
  const given = <T>(name: string, parse: (text: string) => T): T | undefined => {
    const text = textOption(options, name);
    return text === undefined ? undefined : parse(text);
  };
  const settings = {
    flake: given("flake", (text) => text),
    profile: given("profile", (text) => parseLabel("profile", text)),
    role: given("role", (text) => parseLabel("role", text)),
    cpus: given("cpus", parseCpus),
    memMiB: given("mem", parseMemMiB),
    dataDiskMiB: given("dataDisk", parseDataDiskMiB),
  };
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined));
}
