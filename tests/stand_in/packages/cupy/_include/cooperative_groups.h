// The barrier of all blocks of a cooperative launch.
#pragma once

namespace cooperative_groups {
struct grid_group {
    void sync() const { _pause(WAITS_FOR_GRID); }
};
static inline grid_group this_grid() { return {}; }
}  // namespace cooperative_groups
