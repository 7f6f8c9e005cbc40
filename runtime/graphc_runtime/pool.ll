; The thread pool of the runtime. One job at a time: `parallel_for` publishes it, takes chunks itself, and waits only for those workers that
; have joined it, so a worker that is asleep, late or gone costs nothing.
;
; state: the job's number is in bits 33 and up; bit 32 is set while the job is open for joining; the low 32 bits count the workers inside it.
; A worker joins by raising that count while the bit is set, once for each job; then the job's fields stay as they are until it has left.
; The publisher finds no chunk left and clears the bit. busy belongs to the publisher: nested calls and other threads find it set and run inline.
;
; A job is cut into one range for each thread, and each range into at most 16 grains. A thread goes through its own range from the front, then takes
; from the ends of others'. So the same thread has the same part of one job after another, and what it has written is in its own caches: between cores
; that share no cache, a line takes ten times as long. A slot has the number of the job that it is about in bits 16 and up, and how many grains
; of a thread's range were taken from the end (bits 8 to 15) and from the front (0 to 7); one with another job's number has none taken, so nobody prepares slots.
;
; `parked` and `waiting` are raised under the mutex before the last look at `state`, and read after `state` was changed, all in
; sequentially consistent order: either the sleeper sees the change or the waker sees the sleeper.

%pool = type {
  i32, i32, i32, i32, i64, [40 x i8],      ;  0 workers, 1 limit, 2 wanted, 3 stop, 4 spin
  i64, [56 x i8],                          ;  6 state
  i32, [60 x i8],                          ;  8 busy
  ptr, ptr, i64, i64, i64, [24 x i8],      ; 10 task, 11 context, 12 count, 13 threads, 14 job
  i32, i32, [56 x i8],                     ; 16 parked, 17 waiting
  [128 x i8], [128 x i8], [128 x i8],      ; 19 mutex, 20 condition "work", 21 condition "done"
  [64 x [8 x i64]]                         ; 22 slots, a line of the cache each
}

declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @pthread_cond_broadcast(ptr)

; The pool's memory is zero and no thread knows it yet.
define void @graphc_pool_init(ptr %pool) {
  %mutex = getelementptr %pool, ptr %pool, i32 0, i32 19
  %work = getelementptr %pool, ptr %pool, i32 0, i32 20
  %done = getelementptr %pool, ptr %pool, i32 0, i32 21
  %1 = call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  %2 = call i32 @pthread_cond_init(ptr %work, ptr null)
  %3 = call i32 @pthread_cond_init(ptr %done, ptr null)
  ret void
}

; Tell all workers to return.
define void @graphc_pool_stop(ptr %pool) {
  %stop = getelementptr %pool, ptr %pool, i32 0, i32 3
  %mutex = getelementptr %pool, ptr %pool, i32 0, i32 19
  %work = getelementptr %pool, ptr %pool, i32 0, i32 20
  %1 = call i32 @pthread_mutex_lock(ptr %mutex)
  store atomic i32 1, ptr %stop seq_cst, align 4
  %2 = call i32 @pthread_cond_broadcast(ptr %work)
  %3 = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}

; So many pauses, to measure how long one takes.
define void @graphc_pool_pause(i64 %count) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
  call void @relax()
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %count
  br i1 %more, label %loop, label %end
end:
  ret void
}

; Take and run chunks until none is left: a quarter of what is left of a range, but at least a grain.
define internal void @drain(ptr %pool, i64 %self) {
entry:
  %task.at = getelementptr %pool, ptr %pool, i32 0, i32 10
  %context.at = getelementptr %pool, ptr %pool, i32 0, i32 11
  %count.at = getelementptr %pool, ptr %pool, i32 0, i32 12
  %threads.at = getelementptr %pool, ptr %pool, i32 0, i32 13
  %job.at = getelementptr %pool, ptr %pool, i32 0, i32 14
  %task = load ptr, ptr %task.at
  %context = load ptr, ptr %context.at
  %count = load i64, ptr %count.at
  %threads = load i64, ptr %threads.at
  %job = load i64, ptr %job.at
  %tag = shl i64 %job, 16
  %each = udiv i64 %count, %threads
  %longer = urem i64 %count, %threads
  br label %range
range:
  %turn = phi i64 [ 0, %entry ], [ %turn1, %range.end ]
  %from = add i64 %self, %turn
  %owner = urem i64 %from, %threads
  %is.own = icmp eq i64 %turn, 0
  %is.longer = icmp ult i64 %owner, %longer
  %more = zext i1 %is.longer to i64
  %length = add i64 %each, %more
  %before = mul i64 %owner, %each
  %extra = select i1 %is.longer, i64 %owner, i64 %longer
  %start = add i64 %before, %extra
  %few = icmp ult i64 %length, 16
  %grains = select i1 %few, i64 %length, i64 16
  %slot = getelementptr %pool, ptr %pool, i32 0, i32 22, i64 %owner
  br label %look
look:
  %seen = load atomic i64, ptr %slot monotonic, align 8
  %seen.tag = and i64 %seen, -65536
  %is.current = icmp eq i64 %seen.tag, %tag
  %now = select i1 %is.current, i64 %seen, i64 %tag
  %front = and i64 %now, 255
  %now.end = lshr i64 %now, 8
  %back = and i64 %now.end, 255
  %taken = add i64 %front, %back
  %left = sub i64 %grains, %taken
  %some = icmp ne i64 %left, 0
  br i1 %some, label %take, label %range.end
take:
  %quarter = lshr i64 %left, 2
  %tiny = icmp eq i64 %quarter, 0
  %size = select i1 %tiny, i64 1, i64 %quarter
  %size.back = shl i64 %size, 8
  %step = select i1 %is.own, i64 %size, i64 %size.back
  %then = add i64 %now, %step
  %try = cmpxchg weak ptr %slot, i64 %seen, i64 %then monotonic monotonic
  %mine = extractvalue { i64, i1 } %try, 1
  br i1 %mine, label %run, label %look
run:
  %upto = sub i64 %grains, %back
  %behind = sub i64 %upto, %size
  %first = select i1 %is.own, i64 %front, i64 %behind
  %last = add i64 %first, %size
  %first.all = mul i64 %first, %length
  %last.all = mul i64 %last, %length
  %first.at = udiv i64 %first.all, %grains
  %last.at = udiv i64 %last.all, %grains
  %lo = add i64 %start, %first.at
  %hi = add i64 %start, %last.at
  call void %task(ptr %context, i64 %lo, i64 %hi)
  br label %look
range.end:
  %turn1 = add i64 %turn, 1
  %others = icmp ult i64 %turn1, %threads
  br i1 %others, label %range, label %end
end:
  ret void
}

; task(context, lo, hi) for disjoint ranges that cover [0, count), on several threads; returns when all are done.
define void @graphc_parallel_for(ptr %pool, ptr %task, ptr %context, i64 %count) {
entry:
  %workers.at = getelementptr %pool, ptr %pool, i32 0, i32 0
  %limit.at = getelementptr %pool, ptr %pool, i32 0, i32 1
  %wanted.at = getelementptr %pool, ptr %pool, i32 0, i32 2
  %spin.at = getelementptr %pool, ptr %pool, i32 0, i32 4
  %state = getelementptr %pool, ptr %pool, i32 0, i32 6
  %busy = getelementptr %pool, ptr %pool, i32 0, i32 8
  %task.at = getelementptr %pool, ptr %pool, i32 0, i32 10
  %context.at = getelementptr %pool, ptr %pool, i32 0, i32 11
  %count.at = getelementptr %pool, ptr %pool, i32 0, i32 12
  %threads.at = getelementptr %pool, ptr %pool, i32 0, i32 13
  %job.at = getelementptr %pool, ptr %pool, i32 0, i32 14
  %parked.at = getelementptr %pool, ptr %pool, i32 0, i32 16
  %waiting = getelementptr %pool, ptr %pool, i32 0, i32 17
  %mutex = getelementptr %pool, ptr %pool, i32 0, i32 19
  %work = getelementptr %pool, ptr %pool, i32 0, i32 20
  %done = getelementptr %pool, ptr %pool, i32 0, i32 21
  %several = icmp sgt i64 %count, 1
  br i1 %several, label %look, label %few
few:
  %one = icmp eq i64 %count, 1
  br i1 %one, label %inline, label %return
look:
  %workers = load atomic i32, ptr %workers.at monotonic, align 4
  %alone = icmp eq i32 %workers, 0
  br i1 %alone, label %asleep, label %claim
asleep:
  ; No worker yet: run inline, and ask for workers if there may be some.
  %limit = load atomic i32, ptr %limit.at monotonic, align 4
  %may = icmp sgt i32 %limit, 0
  br i1 %may, label %ask, label %inline
ask:
  store atomic i32 1, ptr %wanted.at monotonic, align 4
  br label %inline
claim:
  %claimed = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic
  %mine = extractvalue { i32, i1 } %claimed, 1
  br i1 %mine, label %publish, label %inline
inline:
  call void %task(ptr %context, i64 0, i64 %count)
  br label %return
publish:
  %workers64 = zext i32 %workers to i64
  %all = add i64 %workers64, 1
  %few.slots = icmp ult i64 %all, 64
  %threads = select i1 %few.slots, i64 %all, i64 64
  %job.before = load i64, ptr %job.at
  %job = add i64 %job.before, 1
  store ptr %task, ptr %task.at
  store ptr %context, ptr %context.at
  store i64 %count, ptr %count.at
  store i64 %threads, ptr %threads.at
  store i64 %job, ptr %job.at
  %number = shl i64 %job, 33
  %opened = or i64 %number, 4294967296
  store atomic i64 %opened, ptr %state seq_cst, align 8
  %parked = load atomic i32, ptr %parked.at seq_cst, align 4
  %sleepers = icmp sgt i32 %parked, 0
  br i1 %sleepers, label %wake, label %help
wake:
  ; No more of them than there are chunks for.
  %others = sub i64 %count, 1
  %parked64 = zext i32 %parked to i64
  %fewer = icmp ult i64 %others, %parked64
  %signals = select i1 %fewer, i64 %others, i64 %parked64
  %w1 = call i32 @pthread_mutex_lock(ptr %mutex)
  br label %wake.next
wake.next:
  %sent = phi i64 [ 0, %wake ], [ %sent1, %wake.one ]
  %left = icmp ult i64 %sent, %signals
  br i1 %left, label %wake.one, label %woken
wake.one:
  %w2 = call i32 @pthread_cond_signal(ptr %work)
  %sent1 = add i64 %sent, 1
  br label %wake.next
woken:
  %w3 = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %help
help:
  call void @drain(ptr %pool, i64 0)
  %closed = atomicrmw and ptr %state, i64 -4294967297 seq_cst
  %spin = load i64, ptr %spin.at
  br label %spinning
spinning:
  %i = phi i64 [ 0, %help ], [ %i1, %spin.more ]
  %now = load atomic i64, ptr %state acquire, align 8
  %inside = and i64 %now, 4294967295
  %left.all = icmp eq i64 %inside, 0
  br i1 %left.all, label %release, label %spin.check
spin.check:
  %patient = icmp ult i64 %i, %spin
  br i1 %patient, label %spin.more, label %sleep
spin.more:
  call void @relax()
  %i1 = add i64 %i, 1
  br label %spinning
sleep:
  %s1 = call i32 @pthread_mutex_lock(ptr %mutex)
  store atomic i32 1, ptr %waiting seq_cst, align 4
  br label %sleep.look
sleep.look:
  %later = load atomic i64, ptr %state seq_cst, align 8
  %inside.later = and i64 %later, 4294967295
  %over = icmp eq i64 %inside.later, 0
  br i1 %over, label %sleep.end, label %sleep.wait
sleep.wait:
  %s2 = call i32 @pthread_cond_wait(ptr %done, ptr %mutex)
  br label %sleep.look
sleep.end:
  store atomic i32 0, ptr %waiting seq_cst, align 4
  %s3 = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %release
release:
  store atomic i32 0, ptr %busy release, align 4
  br label %return
return:
  ret void
}

; The life of a worker: look out for jobs, spinning for a short while and then asleep, until told to stop.
define void @graphc_pool_worker(ptr %pool) {
entry:
  %workers.at = getelementptr %pool, ptr %pool, i32 0, i32 0
  %stop = getelementptr %pool, ptr %pool, i32 0, i32 3
  %spin.at = getelementptr %pool, ptr %pool, i32 0, i32 4
  %state = getelementptr %pool, ptr %pool, i32 0, i32 6
  %parked = getelementptr %pool, ptr %pool, i32 0, i32 16
  %waiting = getelementptr %pool, ptr %pool, i32 0, i32 17
  %mutex = getelementptr %pool, ptr %pool, i32 0, i32 19
  %work = getelementptr %pool, ptr %pool, i32 0, i32 20
  %done = getelementptr %pool, ptr %pool, i32 0, i32 21
  %others = atomicrmw add ptr %workers.at, i32 1 seq_cst
  %others64 = zext i32 %others to i64
  %self = add i64 %others64, 1
  %spin = load i64, ptr %spin.at
  br label %idle
idle:
  %done.job = phi i64 [ 0, %entry ], [ %done.job, %unpark ], [ %done.job, %join ], [ %number, %joined ], [ %number, %tell ], [ %number, %tell.now ]
  br label %watch
watch:
  %i = phi i64 [ 0, %idle ], [ %i1, %pause ]
  %stopped = load atomic i32, ptr %stop acquire, align 4
  %go = icmp eq i32 %stopped, 0
  br i1 %go, label %watch.job, label %exit
watch.job:
  %seen = load atomic i64, ptr %state acquire, align 8
  %bit = and i64 %seen, 4294967296
  %open = icmp ne i64 %bit, 0
  %number = lshr i64 %seen, 33
  %is.new = icmp ne i64 %number, %done.job
  %wants = and i1 %open, %is.new
  br i1 %wants, label %join, label %watch.more
watch.more:
  %i1 = add i64 %i, 1
  %patient = icmp ult i64 %i1, %spin
  br i1 %patient, label %pause, label %park
pause:
  call void @relax()
  br label %watch
join:
  %raised = add i64 %seen, 1
  %try = cmpxchg ptr %state, i64 %seen, i64 %raised seq_cst monotonic
  %in = extractvalue { i64, i1 } %try, 1
  br i1 %in, label %joined, label %idle
joined:
  call void @drain(ptr %pool, i64 %self)
  %before = atomicrmw sub ptr %state, i64 1 seq_cst
  %before.inside = and i64 %before, 4294967295
  %last = icmp eq i64 %before.inside, 1
  br i1 %last, label %tell, label %idle
tell:
  %asleep = load atomic i32, ptr %waiting seq_cst, align 4
  %someone = icmp ne i32 %asleep, 0
  br i1 %someone, label %tell.now, label %idle
tell.now:
  %t1 = call i32 @pthread_mutex_lock(ptr %mutex)
  %t2 = call i32 @pthread_cond_signal(ptr %done)
  %t3 = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %idle
park:
  %p1 = call i32 @pthread_mutex_lock(ptr %mutex)
  %p.before = atomicrmw add ptr %parked, i32 1 seq_cst
  br label %park.look
park.look:
  %stopped2 = load atomic i32, ptr %stop seq_cst, align 4
  %go2 = icmp eq i32 %stopped2, 0
  br i1 %go2, label %park.job, label %unpark
park.job:
  %seen2 = load atomic i64, ptr %state seq_cst, align 8
  %bit2 = and i64 %seen2, 4294967296
  %open2 = icmp ne i64 %bit2, 0
  %number2 = lshr i64 %seen2, 33
  %is.new2 = icmp ne i64 %number2, %done.job
  %wants2 = and i1 %open2, %is.new2
  br i1 %wants2, label %unpark, label %park.wait
park.wait:
  %p2 = call i32 @pthread_cond_wait(ptr %work, ptr %mutex)
  br label %park.look
unpark:
  %p.after = atomicrmw sub ptr %parked, i32 1 seq_cst
  %p3 = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %idle
exit:
  %gone = atomicrmw sub ptr %workers.at, i32 1 seq_cst
  ret void
}

; Copy nbytes bytes, or fill them where `from` is null. The memory does not overlap. Threads share it from 512 KiB on: below, waking one costs
; more than it brings.
%bytes = type { ptr, ptr, i64, i8 }          ; to, from, nbytes, value

define void @graphc_pool_move(ptr %pool, ptr %to, ptr %from, i64 %nbytes, i8 %value) {
  %bytes = alloca %bytes
  %from.at = getelementptr %bytes, ptr %bytes, i32 0, i32 1
  %nbytes.at = getelementptr %bytes, ptr %bytes, i32 0, i32 2
  %value.at = getelementptr %bytes, ptr %bytes, i32 0, i32 3
  store ptr %to, ptr %bytes
  store ptr %from, ptr %from.at
  store i64 %nbytes, ptr %nbytes.at
  store i8 %value, ptr %value.at
  %over = add i64 %nbytes, 65535
  %count = lshr i64 %over, 16
  %large = icmp uge i64 %nbytes, 524288
  br i1 %large, label %share, label %alone
share:
  call void @graphc_parallel_for(ptr %pool, ptr @move.pieces, ptr %bytes, i64 %count)
  ret void
alone:
  call void @move.pieces(ptr %bytes, i64 0, i64 %count)
  ret void
}

; Pieces of 64 KiB; several in one go, as the machine fills long stretches without reading them. What no cache of a core holds is filled past the caches.
define internal void @move.pieces(ptr %bytes, i64 %lo, i64 %hi) {
  %from.at = getelementptr %bytes, ptr %bytes, i32 0, i32 1
  %nbytes.at = getelementptr %bytes, ptr %bytes, i32 0, i32 2
  %value.at = getelementptr %bytes, ptr %bytes, i32 0, i32 3
  %to = load ptr, ptr %bytes
  %from = load ptr, ptr %from.at
  %nbytes = load i64, ptr %nbytes.at
  %start = shl i64 %lo, 16
  %after = shl i64 %hi, 16
  %whole = icmp ult i64 %after, %nbytes
  %end = select i1 %whole, i64 %after, i64 %nbytes
  %size = sub i64 %end, %start
  %target = getelementptr i8, ptr %to, i64 %start
  %fills = icmp eq ptr %from, null
  br i1 %fills, label %fill, label %copy
fill:
  %value = load i8, ptr %value.at
  %long = icmp uge i64 %nbytes, 16777216
  %address = ptrtoint ptr %target to i64
  %both = or i64 %address, %size
  %rest = and i64 %both, 63
  %even = icmp eq i64 %rest, 0
  %streams = and i1 %long, %even
  br i1 %streams, label %stream, label %set
set:
  call void @llvm.memset.p0.i64(ptr %target, i8 %value, i64 %size, i1 false)
  ret void
stream:
  %single = insertelement <16 x i8> poison, i8 %value, i64 0
  %values = shufflevector <16 x i8> %single, <16 x i8> poison, <16 x i32> zeroinitializer
  br label %line
line:
  %at = phi i64 [ 0, %stream ], [ %at1, %line ]
  %first = getelementptr i8, ptr %target, i64 %at
  %second = getelementptr i8, ptr %first, i64 16
  %third = getelementptr i8, ptr %first, i64 32
  %fourth = getelementptr i8, ptr %first, i64 48
  store <16 x i8> %values, ptr %first, align 16, !nontemporal !0
  store <16 x i8> %values, ptr %second, align 16, !nontemporal !0
  store <16 x i8> %values, ptr %third, align 16, !nontemporal !0
  store <16 x i8> %values, ptr %fourth, align 16, !nontemporal !0
  %at1 = add i64 %at, 64
  %more = icmp ult i64 %at1, %size
  br i1 %more, label %line, label %streamed
streamed:
  ; Other threads do not see such stores in order otherwise.
  fence seq_cst
  ret void
copy:
  %source = getelementptr i8, ptr %from, i64 %start
  call void @llvm.memcpy.p0.p0.i64(ptr %target, ptr %source, i64 %size, i1 false)
  ret void
}

declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

!0 = !{i32 1}
