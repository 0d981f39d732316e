import type { Command } from "commander";
import { parseLabel } from "../../../core/names.ts";
import { parseCpus, parseDataDiskMiB, parseMemMiB } from "../../../core/sizes.ts";
import type { TemplateSettings } from "../../../template/spec.ts";
import { type Options, textOption } from "../../page.ts";

/** The options that describe a template; `edit` takes them without defaults. */
export function defineSettings(command: Command, defaults?: TemplateSettings): Command {
  return defineCommonSettings(command, defaults).option(
    "--role <name>",
    `what the VMs are for; selects the flake's package of that name if it has one${shownDefault(defaults?.role)}`,
  );
}

/** Those that several templates of one flake can share: all but the role. */
export function defineCommonSettings(command: Command, defaults?: Omit<TemplateSettings, "role">): Command {
  return command
    .option("--flake <ref>", `the flake: a directory, github:…, git+https:…${shownDefault(defaults?.flake)}`)
    .option("--profile <name>", `the flake's package to build${shownDefault(defaults?.profile)}`)
    .option("--cpus <n>", `virtual CPUs${shownDefault(defaults?.cpus)}`)
    .option("--mem <MiB>", `memory in MiB${shownDefault(defaults?.memMiB)}`)
    .option("--data-disk <MiB>", `a disk of this size at /mnt/data, 0 for none${shownDefault(defaults?.dataDiskMiB)}`);
}

function shownDefault(value: string | number | undefined): string {
  return value === undefined ? "" : ` (default ${value})`;
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
