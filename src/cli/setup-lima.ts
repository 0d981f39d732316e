import { limaSetup, parseLimaCpus, parseLimaMemMiB } from "../host/lima/setup.ts";
import type { Cli } from "./cli.ts";
import { confirm } from "./confirm.ts";
import { flag, type Options, textOption } from "./page.ts";

/** `setup` where commands run in a Lima VM: creates it, or brings it up to date. What Linux needs is installed in there. */
export async function setUpLima(cli: Cli, options: Options): Promise<void> {
  const cpus = textOption(options, "limaCpus");
  const memory = textOption(options, "limaMem");
  const wish = {
    ...(cpus === undefined ? {} : { cpus: parseLimaCpus(cpus) }),
    ...(memory === undefined ? {} : { memMiB: parseLimaMemMiB(memory) }),
  };
  const steps = await limaSetup(cli, { ...wish, dryRun: true });
  const plan = (head: string) => `${head}\n${steps.map(({ title }) => `  ${title}\n`).join("")}`;
  if (steps.length === 0) {
    cli.print({ steps, done: true }, () => "The Lima VM is there, up to date and running.\n");
    return;
  }
  if (flag(options, "dryRun")) {
    cli.print({ steps, done: false }, () => plan("mvmctl setup would:"));
    return;
  }
  cli.stderr.write(plan("mvmctl setup will:"));
  if (!flag(options, "yes")) await confirm(cli, "Go on?");
  await limaSetup(cli, wish);
  cli.print({ steps, done: true }, () => "Done. Every command runs in the Lima VM now; `mvmctl doctor` looks at it.\n");
}
