// CZstd: Zstandard, as qcow2's compressed clusters need it.
#pragma once

#include <zstd.h>

// Decompresses frames until `target` is full; 0, or -1 if they end before or are none.
static inline int czstd_decompress(
    const void *source, size_t source_count, void *target, size_t target_count) {
  ZSTD_DStream *stream = ZSTD_createDStream();
  if (!stream) return -1;
  // qcow2's clusters have at most 2 MiB: a larger window is a lie that would only cost memory.
  ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax, 23);
  ZSTD_inBuffer input = {source, source_count, 0};
  ZSTD_outBuffer output = {target, target_count, 0};
  while (output.pos < output.size) {
    size_t before = input.pos + output.pos;
    size_t result = ZSTD_decompressStream(stream, &output, &input);
    if (ZSTD_isError(result) || input.pos + output.pos == before) break;
  }
  ZSTD_freeDStream(stream);
  return output.pos == output.size ? 0 : -1;
}
