import { parseInstanceName } from "../../core/names.ts";
import { removeInstance } from "../../instance/stop.ts";
import { flag, type Page } from "../page.ts";

export const page: Page = {
  summary: "Remove instances and their data disks",
  define: (command) => command.argument("<name...>").option("-f, --force", "also one that runs or is damaged"),
  examples: ["mvmctl rm svc", "mvmctl rm --force svc other"],
  json: true,
  async run(cli, names, options) {
    const chosen = names.map(parseInstanceName);
    for (const name of chosen) await removeInstance(cli, name, { force: flag(options, "force") });
    cli.print({ removed: chosen }, () => chosen.map((name) => `Removed ${name}.\n`).join(""));
  },
};
