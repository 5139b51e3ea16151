//! How RocksDB keeps the state.

use pinrail_state_machine::key;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, Options, SliceTransform,
};

/// Part of the node's memory that holds blocks which were read. The rest of what a node holds has bounds of its own.
const CACHE_PART: u64 = 16;
/// A file is merged at once when so much of it is deletions. Not by what neighbours in it are: each run that ends deletes its
/// timers, so that every file has a stretch of deletions.
const DELETED_RATIO: f64 = 0.5;
/// Tables are merged when there are so many, with all that the level below has: each covers the whole range of keys.
const TABLES: i32 = 6;
/// What that level holds at most, so that what does not change, as runs that wait, sinks below it and is not written again with
/// every merge.
const LEVEL_BYTES: u64 = 32 << 20;
/// Of that level; each level below has files of twice the size. Small ones: a merge takes whole files, and rows that change lie
/// together.
const FILE_BYTES: u64 = 2 << 20;
/// Seconds until a file of the last level is written again only because it tells its rows' ages apart. A reader of the moment
/// before is nearly always there when tables are merged, so that most merges would be followed by another one.
const SETTLE_S: u32 = 3_600;

/// For a node that aims to stay below so many bytes of memory.
///
/// # Errors
/// When this RocksDB does not know an option.
pub(super) fn options(memory: u64) -> Result<Options, rocksdb::Error> {
    let cache = Cache::new_lru_cache(usize::try_from(memory / CACHE_PART).unwrap_or(usize::MAX));
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache);
    table.set_block_size(16 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // The filter of a file with two million keys is larger than a shard of the cache: in one piece, every read of a key
    // would read and check all of it again.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_format_version(6);
    let settle = format!("bottommost_file_compaction_delay={SETTLE_S}");
    let mut options = Options::default().get_options_from_string(settle)?;
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_prefix_extractor(groups());
    options.set_level_zero_file_num_compaction_trigger(TABLES);
    options.set_max_bytes_for_level_base(LEVEL_BYTES);
    options.set_target_file_size_base(FILE_BYTES);
    options.set_target_file_size_multiplier(2);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(2);
    options.set_paranoid_checks(true);
    // Runs that are forgotten leave deleted rows by the million, and scans step over them until they are compacted.
    options.add_compact_on_deletion_collector_factory(0, 0, DELETED_RATIO);
    // Tables come as fast as they are written: Raft has its own back pressure; stalls here would only hide it.
    options.set_level_zero_slowdown_writes_trigger(64);
    options.set_level_zero_stop_writes_trigger(1 << 20);
    Ok(options)
}

/// Filters know groups of rows too: most that are looked for are not there, as the versions of a new key of memory.
/// The name is kept with each file, and a file of another name is looked into: other groups need another one.
fn groups() -> SliceTransform {
    SliceTransform::create(
        "pinrail.groups.1",
        |row| key::group(row).unwrap_or(row),
        Some(|row| key::group(row).is_some()),
    )
}
