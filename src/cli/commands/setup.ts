import { resolve } from "node:path";
import { usesLima } from "../../host/lima.ts";
import { type FirecrackerWish, performStep, setupFacts } from "../../host/setup.ts";
import { planSetup, type SetupStep } from "../../host/setup-plan.ts";
import type { Cli } from "../cli.ts";
import { confirm } from "../confirm.ts";
import { flag, type Options, type Page } from "../page.ts";

export const page: Page = {
  summary: "Install what this machine needs",
  description: `Says what is missing and what it will do, asks, and does it: Debian's packages of Nix, QEMU and a few tools, and Firecracker where
KVM works. Run again, it does nothing. On other systems than Debian's it says what to install.
Firecracker is a pinned release with a known SHA-256; MVM_FC_VERSION chooses another version, and MVM_FC_RELEASES a mirror. On a machine without a network, give a release's
archive, or the program, with --firecracker FILE.
On macOS it makes the Linux VM that commands run in.`,
  define: (command) =>
    command
      .option("--dry-run", "only say what would be done")
      .option("-y, --yes", "do not ask")
      .option("--firecracker [file]", "install Firecracker even if KVM does not work, from a file if one is given")
      .option("--no-firecracker", "leave Firecracker out")
      .option("--lima-cpus <n>", "on macOS: CPUs of the Linux VM that commands run in")
      .option("--lima-mem <MiB>", "on macOS: its memory"),
  examples: [
    "mvmctl setup --dry-run",
    "mvmctl setup --yes",
    "mvmctl setup --firecracker ./firecracker-v1.16.1-x86_64.tgz",
  ],
  json: true,
  async run(cli, _args, options) {
    if (usesLima(cli.env)) {
      const { setUpLima } = await import("../setup-lima.ts");
      return await setUpLima(cli, options);
    }
    const steps = planSetup(await setupFacts(cli, firecrackerWish(cli, options)));
    const ours = steps.filter(({ kind }) => kind !== "by-hand");
    const byHand = ours.length < steps.length;
    if (flag(options, "dryRun")) {
      cli.print({ steps, done: false }, () => announce(steps, "mvmctl setup would:"));
      return;
    }
    if (ours.length > 0) {
      cli.stderr.write(announce(steps, "mvmctl setup will:"));
      if (!flag(options, "yes")) await confirm(cli, "Go on?");
    }
    for (const step of ours) {
      cli.report({ kind: "note", text: step.says });
      await performStep(cli, step);
    }
    cli.print({ steps, done: !byHand }, () => conclude(steps, byHand));
    return byHand ? 1 : 0;
  },
};

function firecrackerWish(cli: Cli, options: Options): FirecrackerWish {
  const given = options["firecracker"];
  if (typeof given === "string") return { file: resolve(cli.cwd, given) };
  return given === false ? "no" : given === true ? "yes" : "auto";
}

function announce(steps: readonly SetupStep[], head: string): string {
  if (steps.length === 0) return "Nothing is missing.\n";
  const lines = steps.map((step) => {
    if (step.kind === "by-hand") return `  (you) ${step.says}\n`;
    return `  ${step.says}${step.kind === "command" ? `\n    ${step.command.join(" ")}` : ""}\n`;
  });
  return `${head}\n${lines.join("")}`;
}

function conclude(steps: readonly SetupStep[], byHand: boolean): string {
  const left = steps.filter(({ kind }) => kind === "by-hand").map(({ says }) => `  ${says}\n`);
  if (byHand) return `This is left for you to do:\n${left.join("")}Then look again: mvmctl doctor\n`;
  return steps.length === 0 ? "Nothing is missing.\n" : "Done. `mvmctl doctor` looks at everything.\n";
}
