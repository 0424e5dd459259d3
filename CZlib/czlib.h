// CZlib: zlib, as qcow2's compressed clusters need it.
#pragma once

#include <string.h>
#include <zlib.h>

// Inflates a raw deflate stream until `target` is full; 0, or -1 if it ends before or is none.
static inline int czlib_inflate(
    const void *source, unsigned source_count, void *target, unsigned target_count) {
  z_stream stream;
  memset(&stream, 0, sizeof stream);
  stream.next_in = (Bytef *)source;
  stream.avail_in = source_count;
  stream.next_out = (Bytef *)target;
  stream.avail_out = target_count;
  // Negative: no header. qcow2's window has 12 bits; a larger one reads all of its streams.
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return -1;
  int result = inflate(&stream, Z_FINISH);
  unsigned missing = stream.avail_out;
  inflateEnd(&stream);
  return (result == Z_STREAM_END || result == Z_BUF_ERROR) && missing == 0 ? 0 : -1;
}
