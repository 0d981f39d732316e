import { parseInstanceName } from "../../core/names.ts";
import { instanceLogs } from "../../instance/logs.ts";
import { UsageError } from "../errors.ts";
import { flag, type Page, textOption } from "../page.ts";

export const page: Page = {
  summary: "Show what an instance's services wrote",
  define: (command) =>
    command
      .argument("<name>")
      .option("-f, --follow", "go on showing what comes")
      .option("-n, --tail <lines>", "only the last so many lines")
      .option("--service <name>", "one service only")
      .option("--console", "what the guest wrote to its console instead")
      .option("--hypervisor", "what the hypervisor said instead"),
  examples: ["mvmctl logs svc -f", "mvmctl logs svc --console --tail 50"],
  json: false,
  async run(cli, [name = ""], options) {
    const tail = textOption(options, "tail");
    const service = textOption(options, "service");
    if (tail !== undefined && !/^\d{1,6}$/.test(tail))
      throw new UsageError(`--tail '${tail}' is not a number of lines`, "write --tail 50");
    await instanceLogs(cli, parseInstanceName(name), {
      source: flag(options, "console") ? "console" : flag(options, "hypervisor") ? "hypervisor" : "services",
      follow: flag(options, "follow"),
      ...(tail === undefined ? {} : { tail: Number(tail) }),
      ...(service === undefined ? {} : { service }),
      write: (text) => void cli.stdout.write(text),
    });
  },
};
