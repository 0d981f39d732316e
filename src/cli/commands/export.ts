import { relative, resolve } from "node:path";
import { parseTemplateName, type TemplateName } from "../../core/names.ts";
import { ENGINES, type Engine, exportFleet } from "../../fleet/export.ts";
import { SECRET } from "../../fleet/kubernetes.ts";
import { ENVIRONMENT_FILE } from "../../fleet/systemd.ts";
import { parsePortForward } from "../../instance/ports.ts";
import { settingsOf } from "../../template/store.ts";
import type { Cli } from "../cli.ts";
import { UsageError } from "../errors.ts";
import { collect, flag, listOption, type Page, textOption } from "../page.ts";

const DEFAULTS = {
  program: "/usr/local/bin/mvmctl",
  dataDir: "/var/lib/mvmctl",
  image: "mvmctl:latest",
} as const;

export const page: Page = {
  summary: "Write unit and job files that run a fleet of a template's VMs",
  description: `For systemd, Nomad or Kubernetes: files that pull the template from the registry and run it in the foreground. The machines of the fleet need mvmctl and QEMU, and no Nix.
With -p each VM is reachable: under systemd at HOST, HOST+1, and so on; under Nomad at a port that Nomad chooses; under Kubernetes at HOST of its pod.`,
  define: (command) =>
    command
      .argument("<engine>", ENGINES.join(", "))
      .requiredOption("--template <name>", "the template to run")
      .option("--count <n>", "how many VMs (default 1)")
      .option("-p, --publish <host:guest>", "reach a guest's TCP port; may be repeated", collect)
      .option("-o, --output <dir>", "where to write the files (default: here)")
      .option("--program <path>", `mvmctl on the machines of the fleet (default ${DEFAULTS.program})`)
      .option("--data-dir <path>", `their data directory (default ${DEFAULTS.dataDir})`)
      .option("--image <ref>", `for Kubernetes: an image with mvmctl and QEMU (default ${DEFAULTS.image})`)
      .option("--no-kvm", "for Kubernetes: without /dev/kvm, and so without a privileged container")
      .option("--isolate", "run them with --isolate: networks of their own, without the machine's own services")
      .option("--force", "replace files that are there and differ"),
  examples: [
    "mvmctl export systemd --template my-service --count 3 -p 8080:80 -o units",
    "mvmctl export nomad --template my-service --count 10",
    "mvmctl export kubernetes --template my-service --image registry.example/mvmctl:0.1",
  ],
  json: true,
  async run(cli, [text = ""], options) {
    const engine = ENGINES.find((name) => name === text);
    if (!engine) throw new UsageError(`'${text}' is not an engine`, `choose one of: ${ENGINES.join(", ")}`);
    const template = parseTemplateName(textOption(options, "template") ?? "");
    const count = textOption(options, "count") ?? "1";
    if (!/^\d{1,6}$/.test(count)) throw new UsageError(`--count '${count}' is not a number`, "write --count 3");
    const directory = resolve(cli.cwd, textOption(options, "output") ?? ".");
    const fleet = {
      template,
      count: Number(count),
      program: textOption(options, "program") ?? DEFAULTS.program,
      dataDir: textOption(options, "dataDir") ?? DEFAULTS.dataDir,
      image: textOption(options, "image") ?? DEFAULTS.image,
      kvm: options["kvm"] !== false,
      isolate: flag(options, "isolate"),
      sizes: settingsOf(cli.paths, template),
      ports: listOption(options, "publish").map(parsePortForward),
    };
    const files = exportFleet(engine, fleet, directory, { force: flag(options, "force") });
    cli.print({ engine, files }, () => describe(cli, engine, template, files));
  },
};

function describe(cli: Cli, engine: Engine, template: TemplateName, files: readonly string[]): string {
  const shown = files.map((file) => relative(cli.cwd, file));
  return `${shown.map((file) => `Wrote ${file}\n`).join("")}Next: ${NEXT[engine](template, shown.at(0) ?? "")}\n`;
}

const NEXT: Record<Engine, (template: string, file: string) => string> = {
  systemd: (template) =>
    `copy them to /etc/systemd/system, write the registry's settings to ${ENVIRONMENT_FILE}, and: systemctl daemon-reload && systemctl enable --now ${template}.target`,
  nomad: (template, file) =>
    `nomad var put nomad/jobs/${template} MVM_TEMPLATE_REGISTRY_ENDPOINT=… && nomad job run ${file}`,
  kubernetes: (_template, file) =>
    `kubectl create secret generic ${SECRET} --from-literal=MVM_TEMPLATE_REGISTRY_ENDPOINT=… && kubectl apply -f ${file}`,
};
