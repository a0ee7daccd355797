// @ts-check
// The dashboard: asks the panel's own origin once a second and shows what it hears.

const POLL_MS = 1000;

const root = element("paddler-dashboard");
const maxBuffered = Number(root.dataset.maxBufferedRequests);

/** @param {string} id */
function element(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page lacks #${id}`);
  return found;
}

/** @param {string} path */
async function getJson(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw new Error(`${path}: status ${response.status}`);
  return response.json();
}

function showServices() {
  const services = [
    ["Inference", root.dataset.inferenceAddr],
    ["OpenAI-compatible", root.dataset.compatOpenaiAddr],
    ["Management", root.dataset.managementAddr],
    ["StatsD", root.dataset.statsdAddr],
  ];
  for (const [label, address] of services) {
    if (!address) continue;
    const term = document.createElement("dt");
    const detail = document.createElement("dd");
    term.textContent = String(label);
    detail.textContent = address;
    element("services").append(term, detail);
  }
  element("agent-command").textContent =
    `paddler agent --management-addr ${root.dataset.managementAddr} --slots 4 --name my-agent`;
}

/** @param {any[]} agents */
function showAgents(agents) {
  const body = element("agents");
  const template = /** @type {HTMLTemplateElement} */ (element("agent-row"));
  while (body.children.length > agents.length) body.lastElementChild?.remove();
  agents.forEach((agent, index) => {
    if (index === body.children.length) body.append(template.content.cloneNode(true));
    const cells = body.children[index].children;
    const model = agent.download_filename ?? agent.model_path?.split("/").pop() ?? "none loaded";
    const issues = agent.issues.flatMap((/** @type {object} */ issue) => Object.keys(issue));
    setText(cells[0], agent.name ?? `(unnamed ${agent.id.slice(0, 6)})`);
    setText(cells[1], agent.state_application_status);
    setText(cells[2], model);
    setText(
      cells[3],
      `${agent.slots_processing} / ${agent.slots_total} / ${agent.desired_slots_total}`,
    );
    setText(cells[4], issues.join(", ") || "none");
    cells[4].className = issues.length > 0 ? "issues" : "";
  });
  element("no-agents").hidden = agents.length > 0;
}

/** @param {number} current */
function showBuffer(current) {
  const bar = /** @type {HTMLProgressElement} */ (element("buffer-bar"));
  bar.max = Math.max(maxBuffered, 1);
  bar.value = current;
  setText(element("buffer-text"), `${current} / ${maxBuffered}`);
}

/** @param {Element} target @param {string} text */
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

async function refresh() {
  const status = element("connection");
  try {
    const [agents, buffer] = await Promise.all([
      getJson("/api/v1/agents"),
      getJson("/api/v1/buffered_requests"),
    ]);
    showAgents(agents.agents);
    showBuffer(buffer.buffered_requests_current);
    setText(status, "Connected");
    status.className = "";
  } catch {
    setText(status, "The balancer does not answer; trying again…");
    status.className = "lost";
  }
  setTimeout(refresh, POLL_MS);
}

showServices();
refresh();
