/** What a run will cost, before it is started, in words. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { duration, si } from '@pluralis-lab/views/numbers.js';

import type { SpecCheck } from '../api/types';

type Estimate = NonNullable<SpecCheck['estimate']>;

export interface EstimateLine {
  name: string;
  value: string;
  note: string;
}

/** @param steps - rounds of the run, for the time of the whole. */
export function estimateLines(estimate: Estimate, steps: number, trans: TranslationBundle): EstimateLine[] {
  const { stage_parameters: stages, boundary_bytes_per_round: boundary, contribution_bytes_per_round: contribution } = estimate;
  const [low, high] = [Math.min(...stages), Math.max(...stages)];
  const whole = trans.__('%1 in the whole model', si(estimate.model_parameters));
  return [
    { name: trans.__('Workers'), value: String(estimate.workers), note: trans._n('process on this machine', 'processes on this machine', estimate.workers) },
    {
      name: trans.__('Parameters a worker'),
      value: low === high ? si(high) : `${si(low)} – ${si(high)}`,
      note: estimate.vocab_is_known ? whole : trans.__('%1; the vocabulary is known once the data is read', whole)
    },
    {
      name: trans.__('Sent by a worker a round'),
      value: si(boundary + contribution, 'B'),
      note: trans.__('%1 over boundaries, %2 to its replicas', si(boundary, 'B'), si(contribution, 'B'))
    },
    {
      name: trans.__('Arithmetic a round'),
      value: si(estimate.flops_per_round, 'FLOP'),
      note: trans.__('for %1 tokens', si(estimate.tokens_per_round))
    },
    estimate.round_s === null
      ? { name: trans.__('Time a round'), value: '–', note: trans.__('known after the first run on this machine') }
      : {
          name: trans.__('Time a round'),
          value: duration(Math.max(0.001, estimate.round_s)),
          note: trans.__('about %1 for all %2 rounds', duration(estimate.round_s * steps), steps)
        }
  ];
}
