/**
 * What the server says and hears, `/pluralis-lab/api/...`. The server's OpenAPI document describes the same.
 * Losses are nats a token, times seconds, rates bytes or tokens a second; wei are decimal texts (they exceed 2^53).
 */

export type RunState = 'starting' | 'running' | 'paused' | 'serving' | 'stopped' | 'failed' | 'damaged';

/** One line of the list of runs: `GET runs`. */
export interface RunRow {
  id: string;
  name: string;
  state: RunState;
  reason: string;
  engine: 'swarm' | 'virtual';
  /** Unix seconds. */
  created: number;
  data: string;
  stages: number;
  replicas: number;
  workers: number;
  live_workers: number | null;
  /** Workers of a live run by state; a server of an older version does not say, nor what follows. */
  phases?: Record<string, number>;
  /** Those that had next to nothing to do in the last rounds; null where that is not known. */
  idle_workers?: number | null;
  /** Over all links of a run that trains. */
  bytes_per_s?: number | null;
  /** Steps that the gradients of the latest stage are late; null under the synchronous schedule. */
  stage_delay?: number | null;
  rounds_done: number;
  steps: number;
  loss: number | null;
  validation: number | null;
  tokens_per_s: number | null;
  unigram_nats: number | null;
  participants: string[];
  account: string;
  /** "embedded", "url" or "none". */
  chain: string;
  /** Where it listens for those who are invited; "" where that is not known. */
  host: string;
  /** Of the micro-batches of a worker that brings a text, the share that is drawn from it; 0: none may be brought. */
  own_data: number;
}

/** What a worker can run on: `GET devices`. */
export interface Device {
  /** "cpu", "cuda:0", ... */
  device: string;
  name: string;
  memory_bytes: number | null;
}

/** `POST runs/{id}/attach`. */
export interface Attached {
  worker: string;
  stage: number;
  replica: number;
  participant: string;
}

/** `POST runs/{id}/invite`. Its text is a secret: it is shown, and put nowhere. */
export interface Invited {
  invitation: string;
  seats: number;
  /** Unix seconds. */
  until: number;
  host: string;
  port: number;
  /** Only processes of the server's machine reach `host`. */
  is_local: boolean;
}

/** A line of what `POST runs/{id}/generate` answers; `error` says why no more comes. */
export interface Written {
  text: string;
  is_last: boolean;
  error: string;
}

/** What a run takes on the disk, in bytes. */
export interface DiskUse {
  events: number;
  evidence: number;
  checkpoints: number;
  logs: number;
  total: number;
}

/** `GET runs/{id}`. */
export interface RunFacts extends RunRow {
  spec: Spec;
  spec_hash: string;
  disk: DiskUse;
  lifetime: string;
  model_parameters: number;
  stage_parameters: number[];
  attesters: string[];
  chain_id: number | null;
}

export type Spec = Record<string, unknown>;

/** Thinned so that extremes survive. */
export interface Curve {
  x: number[];
  y: (number | null)[];
}

export type WorkerState = 'starting' | 'joining' | 'syncing' | 'warming' | 'active' | 'serving' | 'aside' | 'dead' | 'stopped';

export interface WorkerPicture {
  name: string;
  stage: number;
  replica: number;
  participant: string;
  state: string;
  reason: string;
  device: string;
  pid: number | null;
  incarnation: number;
  deaths: number;
  parameters: number | null;
  round: number | null;
  /** Steps that its gradients are late; null under the synchronous schedule, absent in records of older versions. */
  delay?: number | null;
  /** Seconds of compute over seconds of the run's clock in its last rounds, 0 to 1; absent in records of older versions. */
  busy?: number | null;
  /** It takes part in a run that trains and had next to nothing to do in its last rounds; absent in records of older versions. */
  idle?: boolean;
  tokens: number | null;
  work_flops: number | null;
  share: number;
  bytes_per_s: number | null;
  bytes_out: number | null;
  grad_norm: Curve;
  agreement: Curve;
  /** Of this machine's processes, while they run; null elsewhere. */
  cpu_percent?: number | null;
  memory_bytes?: number | null;
  gpu_percent?: number | null;
  gpu_memory_bytes?: number | null;
  /** Seconds since the worker's last event (of the run's own clock). */
  silent_s?: number | null;
}

export interface ParticipantPicture {
  name: string;
  work_share: number | null;
  owned: number | null;
  owned_wei: string;
}

export interface EpochPicture {
  epoch: number;
  round: number;
  shares: Record<string, number | null>;
  statements: number;
  unpaid: number;
  attested_by: string[];
}

/** A text that a worker brought along, as stage 1 counted what was drawn of it. */
export interface OwnText {
  worker: string;
  participant: string;
  corpus: string;
  /** SHA-256 of the text, hexadecimal. */
  hash: string;
  /** Tokens of the text, and those drawn from it so far. */
  size: number;
  tokens: number;
  /** Of all tokens that were trained on. */
  share: number | null;
}

export interface Mark {
  /** "death", "return", "aside", "back", "joined", "reroute"; a newer server may have more. */
  kind: string;
  round: number;
  worker: string;
  text: string;
}

/** Version 1 of `application/vnd.pluralis.run+json`: what `createRunView` draws. */
export interface RunPicture {
  version: 1;
  run: string;
  name: string;
  engine: 'swarm' | 'virtual';
  seq: number;
  state: RunState;
  reason: string;
  headline: string;
  over: boolean;
  stages: number;
  replicas: number;
  steps: number;
  round: number | null;
  rounds_done: number;
  epoch_rounds: number;
  elapsed_s: number | null;
  speed: number | null;
  round_s: number | null;
  remaining_s: number | null;
  unigram_nats: number | null;
  /** Whether the model can be asked to go on with a text; absent in records of older versions. */
  writes_text?: boolean;
  model_parameters: number | null;
  stage_parameters: number[];
  loss: Curve;
  validation: Curve;
  tokens_per_s: Curve;
  tokens: number | null;
  wire: { forward_bytes_per_token?: number; backward_bytes_per_token?: number; [key: string]: unknown };
  live_workers: number;
  workers: WorkerPicture[];
  participants: ParticipantPicture[];
  epochs_closed: number;
  epochs: EpochPicture[];
  /** The texts that most was drawn of; absent in records of older versions. */
  own_texts?: OwnText[];
  reroutes: number;
  checkpoints: number;
  marks: Mark[];
  errors: { worker: string; message: string }[];
}

/** What the live socket says: `WS runs/{id}/live?since=SEQ`. */
export type LiveMessage =
  | { type: 'picture'; picture: RunPicture; partial: boolean }
  | { type: 'pulse'; seq: number; silent_s: number | null; problem: string; sent: number }
  | { type: 'reading'; done: number; total: number };

/** What a viewer says: it has drawn `seq` (the next picture is sent only then), or it is (not) visible. */
export type ViewerMessage = { type: 'ack'; seq: number } | { type: 'visible'; visible: boolean };

/** `GET runs/{id}/picture?points=240&since=SEQ`: null when nothing is newer. */
export interface PictureReply {
  seq: number;
  picture: RunPicture | null;
  silent_s: number | null;
  problem: string;
}

export interface RunEvent {
  seq: number;
  time: number;
  kind: string;
  worker: string | null;
  round: number | null;
  body: Record<string, unknown>;
}

/** A signed statement about one worker's work: `GET runs/{id}/receipts?worker=NAME`. */
export interface Receipt {
  epoch: number;
  kind: 'forward' | 'backward' | 'contribution';
  round: number;
  worker: string;
  signer: string;
  signer_participant: string;
  micro_batches: number;
  tokens: number;
  norm: number | null;
  agreement: number | null;
  digest: string;
}

export interface Finding {
  kind: string;
  epoch: number | null;
  subject: string;
  detail: string;
}

/** `POST runs/{id}/audit`. */
export interface AuditReply {
  ok: boolean;
  verdict: string;
  findings: Finding[];
  notes: Finding[];
  epochs: number;
  statements: number;
  attestations: number;
  unattested_units: string;
  ownership: { epoch: number; participant: string; units: string; share: string; percent: number }[];
  seconds: number;
}

export interface Holder {
  account: string;
  name: string;
  shares_wei: string;
  percent: number;
  claimable_wei: string;
  claimed_wei: string;
}

/** `GET runs/{id}/ownership`. */
export interface Ownership {
  chain: { kind: string; chain_id: number | null; ledger: string | null; token: string | null };
  /** "none": no chain; "untokenized"; "tokenized"; "unreachable" (then `problem`). */
  state: 'none' | 'untokenized' | 'tokenized' | 'unreachable';
  problem: string;
  /** Account names of this home that can pay and claim here. */
  accounts: string[];
  can_pay: boolean;
  epochs: {
    epoch: number;
    root: string;
    shares: Record<string, string>;
    amounts_wei: Record<string, string>;
    attested_by: string[];
  }[];
  token: null | {
    name: string;
    symbol: string;
    epochs_posted: number;
    epochs_finalized: number;
    supply_wei: string;
    paid_wei: string;
    claimed_wei: string;
    claimable_wei: string;
    dust_wei: string;
    holders: Holder[];
  };
}

/** `POST spec/check`. */
export interface SpecCheck {
  ok: boolean;
  /** The message of RunSpecError: it names the value and the remedy. */
  message: string;
  /** Fields the message is about, as far as it can be told; [] for the spec as a whole. */
  fields: string[];
  hash: string | null;
  /** With every default filled in. */
  spec: Spec | null;
  estimate: null | {
    workers: number;
    model_parameters: number;
    stage_parameters: number[];
    /** Sent by a worker in a round: activations and gradients over its boundary, and its contribution to its replicas. */
    boundary_bytes_per_round: number;
    contribution_bytes_per_round: number;
    flops_per_round: number;
    /** Seconds a round on this machine, from runs of this home with their FLOPs a second; null without one. */
    round_s: number | null;
    tokens_per_round: number;
    vocab_is_known: boolean;
  };
}

/** `GET status`. */
export interface ServerStatus {
  version: string;
  read_only: boolean;
  allowed_chains: string[];
  python: string;
  num_roots: number;
  max_live_runs: number;
}

/** What a refused request says; `message` names the value and the remedy. */
export interface ApiError {
  message: string;
  reason: string;
}
