// Everything.
#pragma once

#include "kvbm/block.h"
#include "kvbm/completion.h"
#include "kvbm/config.h"
#include "kvbm/events.h"
#include "kvbm/layout.h"
#include "kvbm/manager.h"
#include "kvbm/metadata.h"
#include "kvbm/metrics.h"
#include "kvbm/pool.h"
#include "kvbm/remote.h"
#include "kvbm/result.h"
#include "kvbm/storage.h"
#include "kvbm/tiers.h"
#include "kvbm/tokens.h"
#include "kvbm/types.h"
