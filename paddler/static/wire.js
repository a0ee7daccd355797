// @ts-check
// Every name of the wire that the panel uses. A test compares these lists with the messages of
// the balancer, and the types below with these lists.

/**
 * @typedef {"Applied" | "AttemptedAndNotAppliable" | "AttemptedAndRetrying" | "Fresh" | "Stuck"} ApplicationStatus
 * @typedef {"idle" | "downloading" | "waiting_for_lock" | "draining" | "loading" | "warming" | "serving" | "retrying"} AgentPhase
 */

/** @type {readonly ApplicationStatus[]} */
export const APPLICATION_STATUSES = Object.freeze([
  "Applied",
  "AttemptedAndNotAppliable",
  "AttemptedAndRetrying",
  "Fresh",
  "Stuck",
]);

/** @type {readonly AgentPhase[]} */
export const AGENT_PHASES = Object.freeze([
  "idle",
  "downloading",
  "waiting_for_lock",
  "draining",
  "loading",
  "warming",
  "serving",
  "retrying",
]);

// --- agents ------------------------------------------------------------------------------------

/**
 * One key names the kind of an issue (see ISSUES), its value tells more.
 * @typedef {Record<string, IssueDetail>} AgentIssue
 * @typedef {{
 *   model_path?: string | { model_path: string },
 *   lock_path?: string,
 *   error?: string,
 *   template_content?: string,
 *   slot_index?: number,
 * }} IssueDetail
 */

/**
 * One agent, as the management service shows it.
 * @typedef {{
 *   desired_slots_total: number,
 *   download_current: number,
 *   download_filename: string | null,
 *   download_indeterminate: boolean,
 *   download_total: number,
 *   id: string,
 *   issues: AgentIssue[],
 *   model_path: string | null,
 *   name: string | null,
 *   slots_processing: number,
 *   slots_total: number,
 *   state_application_status: ApplicationStatus,
 *   uses_chat_template_override: boolean,
 * }} AgentSnapshot
 */

/** @type {readonly (keyof AgentSnapshot)[]} */
export const AGENT_FIELDS = Object.freeze([
  "desired_slots_total",
  "download_current",
  "download_filename",
  "download_indeterminate",
  "download_total",
  "id",
  "issues",
  "model_path",
  "name",
  "slots_processing",
  "slots_total",
  "state_application_status",
  "uses_chat_template_override",
]);

/**
 * What an agent tells of itself beyond its status. Times are seconds since 1970.
 * @typedef {{
 *   host: string,
 *   started_at: number,
 *   engine: string | null,
 *   devices: string[],
 *   threads: number,
 *   cores: number[],
 *   memory_bytes: number,
 *   phase: AgentPhase,
 *   load_fraction: number | null,
 *   bytes_per_s: number | null,
 *   seconds_left: number | null,
 *   wanted_state: string | null,
 *   applied_state: string | null,
 *   loaded_model: string | null,
 *   context_size: number | null,
 *   slot_context_size: number | null,
 *   notes: string[],
 *   worker_restarts: number,
 *   reconnects: number,
 * }} AgentDetails
 */

/** @type {readonly (keyof AgentDetails)[]} */
export const DETAIL_FIELDS = Object.freeze([
  "host",
  "started_at",
  "engine",
  "devices",
  "threads",
  "cores",
  "memory_bytes",
  "phase",
  "load_fraction",
  "bytes_per_s",
  "seconds_left",
  "wanted_state",
  "applied_state",
  "loaded_model",
  "context_size",
  "slot_context_size",
  "notes",
  "worker_restarts",
  "reconnects",
]);

/**
 * What the balancer knows of an agent beyond its snapshot.
 * @typedef {{
 *   id: string,
 *   version: string,
 *   address: string,
 *   is_drained: boolean,
 *   connected_at: number,
 *   is_silent: boolean,
 *   details: AgentDetails | null,
 * }} AgentFacts
 */

/** @type {readonly (keyof AgentFacts)[]} */
export const FACT_FIELDS = Object.freeze([
  "id",
  "version",
  "address",
  "is_drained",
  "connected_at",
  "is_silent",
  "details",
]);

export const ISSUES = Object.freeze([
  "CacheCannotAcquireLock",
  "CacheDirectoryIsNotWritable",
  "CacheStorageIsFull",
  "ChatTemplateDoesNotCompile",
  "DownloadInterrupted",
  "DownloadServerDeniedAccess",
  "DownloadServerErrored",
  "DownloadServerIsUnreachable",
  "DownloadServerRejectedRequest",
  "DownloadUrlIsMalformed",
  "HuggingFaceCannotAcquireLock",
  "HuggingFaceModelDoesNotExist",
  "HuggingFacePermissions",
  "ModelCacheIsCorrupted",
  "ModelCannotBeLoaded",
  "ModelDoesNotExistAtUrl",
  "ModelFileDoesNotExist",
  "MultimodalProjectionCannotBeLoaded",
  "SlotCannotStart",
  "UnableToFindChatTemplate",
]);

/** What the details of issues may hold. */
export const ISSUE_DETAIL_FIELDS = Object.freeze([
  "error",
  "lock_path",
  "model_path",
  "slot_index",
  "template_content",
]);

// --- history and events ------------------------------------------------------------------------

/**
 * One second of the fleet. `at`: its end, in seconds since 1970.
 * @typedef {{
 *   at: number,
 *   slots_busy: number,
 *   slots_total: number,
 *   waiting: number,
 *   tokens: number,
 *   first_token_ms: number | null,
 *   requests: number,
 *   errors: number,
 * }} Sample
 */

/** @type {readonly (keyof Sample)[]} */
export const SAMPLE_FIELDS = Object.freeze([
  "at",
  "slots_busy",
  "slots_total",
  "waiting",
  "tokens",
  "first_token_ms",
  "requests",
  "errors",
]);

/**
 * Something that happened to the fleet.
 * @typedef {{
 *   id: number,
 *   at: number,
 *   kind: string,
 *   text: string,
 *   agent_id: string | null,
 *   agent_name: string | null,
 *   detail: Record<string, unknown>,
 * }} FleetEvent
 */

/** @type {readonly (keyof FleetEvent)[]} */
export const EVENT_FIELDS = Object.freeze([
  "id",
  "at",
  "kind",
  "text",
  "agent_id",
  "agent_name",
  "detail",
]);

export const EVENT_KINDS = Object.freeze([
  "agent_joined",
  "agent_left",
  "agent_refused",
  "agent_status",
  "issue_raised",
  "issue_cleared",
  "model_loaded",
  "model_unloaded",
  "worker_restarted",
  "state_changed",
  "agent_drained",
  "agent_resumed",
  "agent_disconnected",
  "host_oversubscribed",
  "requests_refused",
]);

// --- the desired state -------------------------------------------------------------------------

/**
 * @typedef {{ filename: string, repo_id: string, revision: string }} HuggingFaceModel
 * @typedef {{ url: string }} UrlModel
 * @typedef {"None" | { HuggingFace: HuggingFaceModel } | { Url: UrlModel } | { LocalToAgent: string }} ModelReference
 * @typedef {{ content: string }} ChatTemplate
 */

export const MODEL_SOURCES = Object.freeze(["None", "HuggingFace", "Url", "LocalToAgent"]);

/** @type {readonly (keyof HuggingFaceModel)[]} */
export const HUGGING_FACE_FIELDS = Object.freeze(["filename", "repo_id", "revision"]);

/** @type {readonly (keyof UrlModel)[]} */
export const URL_FIELDS = Object.freeze(["url"]);

/** @type {readonly (keyof ChatTemplate)[]} */
export const CHAT_TEMPLATE_FIELDS = Object.freeze(["content"]);

/**
 * @typedef {"F32" | "F16" | "BF16" | "Q8_0" | "Q4_0" | "Q4_1" | "IQ4_NL" | "Q5_0" | "Q5_1"} KvCacheDtype
 * @typedef {"Unspecified" | "None" | "Mean" | "Cls" | "Last" | "Rank"} PoolingType
 */

/** @type {readonly KvCacheDtype[]} */
export const KV_CACHE_DTYPES = Object.freeze([
  "F32",
  "F16",
  "BF16",
  "Q8_0",
  "Q4_0",
  "Q4_1",
  "IQ4_NL",
  "Q5_0",
  "Q5_1",
]);

/** @type {readonly PoolingType[]} */
export const POOLING_TYPES = Object.freeze([
  "Unspecified",
  "None",
  "Mean",
  "Cls",
  "Last",
  "Rank",
]);

/**
 * How agents load and sample. Every key is required.
 * @typedef {{
 *   n_batch: number,
 *   context_size: number,
 *   embedding_batch_size: number,
 *   enable_embeddings: boolean,
 *   image_resize_to_fit: number,
 *   k_cache_dtype: KvCacheDtype,
 *   v_cache_dtype: KvCacheDtype,
 *   min_p: number,
 *   n_gpu_layers: number,
 *   penalty_frequency: number,
 *   penalty_last_n: number,
 *   penalty_presence: number,
 *   penalty_repeat: number,
 *   pooling_type: PoolingType,
 *   temperature: number,
 *   top_k: number,
 *   top_p: number,
 * }} InferenceParameters
 */

/** @type {readonly (keyof InferenceParameters)[]} */
export const PARAMETER_FIELDS = Object.freeze([
  "n_batch",
  "context_size",
  "embedding_batch_size",
  "enable_embeddings",
  "image_resize_to_fit",
  "k_cache_dtype",
  "v_cache_dtype",
  "min_p",
  "n_gpu_layers",
  "penalty_frequency",
  "penalty_last_n",
  "penalty_presence",
  "penalty_repeat",
  "pooling_type",
  "temperature",
  "top_k",
  "top_p",
]);

/**
 * @typedef {{
 *   chat_template_override: ChatTemplate | null,
 *   inference_parameters: InferenceParameters,
 *   model: ModelReference,
 *   multimodal_projection: ModelReference,
 *   use_chat_template_override: boolean,
 * }} DesiredState
 */

/** @type {readonly (keyof DesiredState)[]} */
export const DESIRED_STATE_FIELDS = Object.freeze([
  "chat_template_override",
  "inference_parameters",
  "model",
  "multimodal_projection",
  "use_chat_template_override",
]);

/**
 * What agents are told to run, in short. `fingerprint` is what agents call `wanted_state`.
 * @typedef {{
 *   fingerprint: string,
 *   model: ModelReference,
 *   multimodal_projection: ModelReference,
 *   enable_embeddings: boolean,
 *   uses_chat_template_override: boolean,
 * }} StateSummary
 */

/** @type {readonly (keyof StateSummary)[]} */
export const STATE_SUMMARY_FIELDS = Object.freeze([
  "fingerprint",
  "model",
  "multimodal_projection",
  "enable_embeddings",
  "uses_chat_template_override",
]);

// --- trials of templates -----------------------------------------------------------------------

/**
 * @typedef {{
 *   template: string,
 *   messages?: object[] | null,
 *   tools?: object[] | null,
 *   add_generation_prompt?: boolean,
 *   enable_thinking?: boolean,
 * }} TemplateTrial
 * @typedef {{ text: string | null, error: string | null, line: number | null }} TemplateResult
 */

/** @type {readonly (keyof TemplateTrial)[]} */
export const TEMPLATE_TRIAL_FIELDS = Object.freeze([
  "template",
  "messages",
  "tools",
  "add_generation_prompt",
  "enable_thinking",
]);

/** @type {readonly (keyof TemplateResult)[]} */
export const TEMPLATE_RESULT_FIELDS = Object.freeze(["text", "error", "line"]);

// --- the event stream --------------------------------------------------------------------------

/**
 * @typedef {{ version: string, now: number, interval_s: number, max_samples: number, max_events: number }} Hello
 * @typedef {{ is_whole: boolean, changed: AgentSnapshot[], gone: string[] }} AgentsChange
 * @typedef {{ is_whole: boolean, changed: AgentFacts[] }} FactsChange
 * @typedef {{ is_whole: boolean, tokens_per_s: Record<string, number> }} Rates
 * @typedef {{ waiting: number }} BufferLevel
 * @typedef {{ is_whole: boolean, samples: Sample[] }} Samples
 * @typedef {{ is_whole: boolean, events: FleetEvent[] }} Events
 */

/** @type {readonly (keyof Hello)[]} */
export const HELLO_FIELDS = Object.freeze([
  "version",
  "now",
  "interval_s",
  "max_samples",
  "max_events",
]);

/** @type {readonly (keyof AgentsChange)[]} */
export const AGENTS_CHANGE_FIELDS = Object.freeze(["is_whole", "changed", "gone"]);

/** @type {readonly (keyof FactsChange)[]} */
export const FACTS_CHANGE_FIELDS = Object.freeze(["is_whole", "changed"]);

/** @type {readonly (keyof Rates)[]} */
export const RATES_FIELDS = Object.freeze(["is_whole", "tokens_per_s"]);

/** @type {readonly (keyof BufferLevel)[]} */
export const BUFFER_LEVEL_FIELDS = Object.freeze(["waiting"]);

/** @type {readonly (keyof Samples)[]} */
export const SAMPLES_FIELDS = Object.freeze(["is_whole", "samples"]);

/** @type {readonly (keyof Events)[]} */
export const EVENTS_FIELDS = Object.freeze(["is_whole", "events"]);

/** Names of the events of the stream. */
export const STREAM_EVENTS = Object.freeze([
  "hello",
  "agents",
  "facts",
  "rates",
  "buffer",
  "state",
  "samples",
  "events",
]);

// --- what the calls are called -----------------------------------------------------------------

export const PATHS = Object.freeze({
  stream: "/api/v1/panel/stream",
  agents: "/api/v1/agents",
  agentDetails: "/api/v1/agent_details",
  desiredState: "/api/v1/balancer_desired_state",
  applicableState: "/api/v1/balancer_applicable_state",
  renderTemplate: "/api/v1/chat_template/render",
  version: "/api/v1/version",
  embeddingBatch: "/api/v1/generate_embedding_batch",
  chatCompletions: "/api/openai/v1/chat/completions",
  embeddings: "/api/openai/v1/embeddings",
  models: "/api/openai/v1/models",
});

/**
 * @param {string} agentId
 * @param {"model_metadata" | "chat_template_override" | "drain" | "resume" | "disconnect"} what
 */
export function agentPath(agentId, what) {
  return `/api/v1/agent/${encodeURIComponent(agentId)}/${what}`;
}
