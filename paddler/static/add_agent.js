// @ts-check
// How an agent is added: the command, with the address that another machine would use.

import { MANAGEMENT, isLoopback, reachableAddress } from "./configuration.js";
import { openDialog } from "./dialog.js";
import { copyButton, make } from "./dom.js";

/** @param {import("./configuration.js").Configuration} configuration */
export function agentCommand(configuration) {
  const { address } = reachableAddress(configuration.managementAddr, location.hostname);
  const tls = configuration.tls.has(MANAGEMENT) ? " --management-tls" : "";
  const token = configuration.asksForToken ? " --management-token-file FILE" : "";
  return `paddler agent --management-addr ${address}${tls}${token} --slots 4`;
}

/** @param {import("./configuration.js").Configuration} configuration */
export function agentGuide(configuration) {
  const command = agentCommand(configuration);
  const port = configuration.managementAddr.split(":").pop();
  const host = configuration.managementAddr.slice(0, configuration.managementAddr.lastIndexOf(":"));
  return make(
    "div",
    { class: "guide" },
    make("p", {}, "Run this on a machine that has Paddler (", make("code", { text: "pip install 'paddler[agent]'" }), "):"),
    make("div", { class: "command" }, make("code", { text: command }), copyButton(() => command, "the command")),
    isLoopback(host)
      ? make(
          "p",
          { class: "note" },
          "This works on the balancer's own machine. For agents on other machines start the balancer with ",
          make("code", { text: `--management-addr 0.0.0.0:${port}` }),
          ", or with the address of an internal network.",
        )
      : null,
    make(
      "ul",
      {},
      configuration.asksForToken
        ? make("li", {}, make("code", { text: "FILE" }), " holds a management token that the balancer knows.")
        : null,
      configuration.tls.has(MANAGEMENT)
        ? make("li", {}, "If the balancer's certificate is of an authority of your own, name that: ", make("code", { text: "--management-tls-ca PEM" }), ".")
        : null,
      make("li", {}, "Agents open no port: they only have to reach that address."),
      make("li", {}, "A slot is one request at a time. Start with 4 on a CPU and 8 to 16 on a GPU, and watch tokens per second here."),
      make("li", {}, "Add ", make("code", { text: "--name gpu-1" }), " to tell agents apart. One agent for each device is best."),
    ),
  );
}

/** @param {import("./configuration.js").Configuration} configuration */
export function openAgentGuide(configuration) {
  openDialog({ title: "Add an agent", content: agentGuide(configuration), className: "narrow" });
}
