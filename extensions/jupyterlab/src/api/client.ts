/** The server's routes as typed calls. A refused request becomes an `ApiRefusal` with the server's own words. */

import type { ServerConnection } from '@jupyterlab/services';

import { jupyterTransport, type Transport } from './transport';
import type {
  Attached,
  AuditReply,
  Device,
  Invited,
  Ownership,
  PictureReply,
  Receipt,
  RunEvent,
  RunFacts,
  RunRow,
  RunState,
  ServerStatus,
  Spec,
  SpecCheck,
  Written
} from './types';

/** The server said no, or could not be reached (`status` 0). `message` is meant for people: it names the value and the remedy. */
export class ApiRefusal extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly reason: string
  ) {
    super(message);
    this.name = 'ApiRefusal';
  }
}

/** What `POST runs` takes. */
export interface NewRun {
  spec: Spec;
  account?: string;
  participants?: string[];
  chain?: 'embedded';
}

/** What `POST runs/{id}/attach` takes. Without a stage it is the thinnest, without an account the founder owns it. */
export interface NewWorker {
  device?: string;
  stage?: number;
  account?: string;
  /** "path:FILE_OR_FOLDER" of the server's machine, a text that it draws from. */
  data?: string;
}

/** What `POST runs/{id}/invite` takes. */
export interface NewInvitation {
  seats: number;
  stage?: number;
  for_hours: number;
}

/** What `POST runs/{id}/generate` takes: how many tokens to write, and how freely (0: the likeliest). */
export interface Prompt {
  prompt: string;
  tokens?: number;
  temperature?: number;
  seed?: number;
}

export interface SpecSchema {
  schema: Record<string, unknown>;
  default: Spec;
}

/** One server. Every call throws `ApiRefusal` when it is refused. */
export class Api {
  constructor(
    settings: ServerConnection.ISettings,
    readonly transport: Transport = jupyterTransport(settings)
  ) {}

  status(): Promise<ServerStatus> {
    return this.get('status');
  }

  async runs(): Promise<RunRow[]> {
    return (await this.get<{ runs: RunRow[] }>('runs')).runs;
  }

  run(id: string): Promise<RunFacts> {
    return this.get(`runs/${part(id)}`);
  }

  /** Start a run; gives its id. */
  async start(run: NewRun): Promise<string> {
    return (await this.post<{ id: string }>('runs', run)).id;
  }

  async remove(id: string): Promise<void> {
    await this.request(`runs/${part(id)}`, { method: 'DELETE' });
  }

  picture(id: string, since: number | null = null, points = 240): Promise<PictureReply> {
    return this.get(`runs/${part(id)}/picture${query({ points, since })}`);
  }

  events(id: string, options: { since?: number; limit?: number; kinds?: string[] } = {}): Promise<{ events: RunEvent[]; next: number }> {
    return this.get(`runs/${part(id)}/events${query({ since: options.since, limit: options.limit, kinds: options.kinds?.join(',') })}`);
  }

  stop(id: string): Promise<{ state: RunState }> {
    return this.post(`runs/${part(id)}/stop`);
  }

  resume(id: string): Promise<{ state: RunState }> {
    return this.post(`runs/${part(id)}/resume`);
  }

  async devices(): Promise<Device[]> {
    return (await this.get<{ devices: Device[] }>('devices')).devices;
  }

  attach(id: string, worker: NewWorker = {}): Promise<Attached> {
    return this.post(`runs/${part(id)}/attach`, worker);
  }

  /** The text that the model goes on with, in pieces as they come. Throws `ApiRefusal`, also for what ends it before its time. */
  async *generate(id: string, prompt: Prompt, signal?: AbortSignal): AsyncGenerator<string> {
    const response = await this.answer(`runs/${part(id)}/generate`, { method: 'POST', body: JSON.stringify(prompt), signal });
    let isWhole = false;
    try {
      for await (const line of linesOf(response)) {
        const { text, is_last, error } = JSON.parse(line) as Written;
        if (error) {
          throw new ApiRefusal(error, response.status, 'ended');
        }
        isWhole = is_last;
        yield text;
      }
    } catch (error) {
      // What a broken connection throws is no sentence for a reader.
      if (error instanceof ApiRefusal || signal?.aborted) {
        throw error;
      }
      isWhole = false;
    }
    if (!isWhole) {
      throw new ApiRefusal('The connection to the Jupyter server was lost before the text was complete.', 0, 'unreachable');
    }
  }

  invite(id: string, wanted: NewInvitation): Promise<Invited> {
    return this.post(`runs/${part(id)}/invite`, wanted);
  }

  /** Ask a worker to leave for good. */
  detach(id: string, worker: string): Promise<{ state: RunState }> {
    return this.post(`runs/${part(id)}/detach`, { worker });
  }

  kill(id: string, worker: string): Promise<{ state: RunState }> {
    return this.post(`runs/${part(id)}/kill`, { worker });
  }

  log(id: string, process: string, lines = 200): Promise<{ process: string; text: string }> {
    return this.get(`runs/${part(id)}/log/${part(process)}${query({ lines })}`);
  }

  receipts(
    id: string,
    worker: string,
    options: { limit?: number; before?: number } = {}
  ): Promise<{ receipts: Receipt[]; total: number }> {
    return this.get(`runs/${part(id)}/receipts${query({ worker, ...options })}`);
  }

  audit(id: string): Promise<AuditReply> {
    return this.post(`runs/${part(id)}/audit`);
  }

  ownership(id: string): Promise<Ownership> {
    return this.get(`runs/${part(id)}/ownership`);
  }

  tokenize(id: string, account?: string): Promise<Ownership> {
    return this.post(`runs/${part(id)}/tokenize`, { account });
  }

  /** Pay revenue to the owners; the amount is a decimal text in ether. */
  pay(
    id: string,
    amount_eth: string,
    account?: string
  ): Promise<{ transaction: string; wei: string; account: string; block: number }> {
    return this.post(`runs/${part(id)}/pay`, { amount_eth, account });
  }

  claim(id: string, account?: string): Promise<{ claims: { account: string; name: string; wei: string }[] }> {
    return this.post(`runs/${part(id)}/claim`, { account });
  }

  schema(): Promise<SpecSchema> {
    return this.get('spec/schema');
  }

  check(spec: Spec, signal?: AbortSignal): Promise<SpecCheck> {
    return this.post('spec/check', { spec }, signal);
  }

  /** Open the live socket of a run; with `since`, only what is newer is sent. */
  openLive(id: string, since: number | null): WebSocket {
    return this.transport.openSocket(`runs/${part(id)}/live${query({ since })}`);
  }

  private get<T>(path: string): Promise<T> {
    return this.request<T>(path, { method: 'GET' });
  }

  private post<T>(path: string, body: unknown = {}, signal?: AbortSignal): Promise<T> {
    return this.request<T>(path, { method: 'POST', body: JSON.stringify(body), signal });
  }

  private async request<T>(path: string, init: RequestInit): Promise<T> {
    const response = await this.answer(path, init);
    return response.status === 204 ? (undefined as T) : ((await response.json()) as T);
  }

  private async answer(path: string, init: RequestInit): Promise<Response> {
    let response: Response;
    try {
      response = await this.transport.ask(path, init);
    } catch (error) {
      if (init.signal?.aborted) {
        throw error;
      }
      throw new ApiRefusal('The Jupyter server does not answer; is it still running?', 0, 'unreachable');
    }
    if (!response.ok) {
      throw await refusal(response);
    }
    return response;
  }
}

/** The lines of a reply, each as soon as it is whole. */
async function* linesOf(response: Response): AsyncGenerator<string> {
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
      const lines = (rest + decoder.decode(value, { stream: true })).split('\n');
      rest = lines.pop() ?? '';
      yield* lines;
    }
  } finally {
    // Who reads no further wants no more to come.
    await reader.cancel();
  }
}

async function refusal(response: Response): Promise<ApiRefusal> {
  const text = await response.text();
  let message = '';
  let reason = '';
  try {
    const body = JSON.parse(text) as { message?: unknown; reason?: unknown } | null;
    message = typeof body?.message === 'string' ? body.message : '';
    reason = typeof body?.reason === 'string' ? body.reason : '';
  } catch {
    // Not JSON: a proxy in between answered in its own way; its status is all there is to tell.
  }
  return new ApiRefusal(message || `${response.status} ${response.statusText}`.trim(), response.status, reason);
}

function part(text: string): string {
  return encodeURIComponent(text);
}

function query(values: Record<string, string | number | null | undefined>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined) {
      query.set(name, String(value));
    }
  }
  const text = query.toString();
  return text ? `?${text}` : '';
}
